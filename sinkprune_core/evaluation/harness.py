"""Every model that `load` returns, dense or pruned, as a model of lm-evaluation-harness.

The harness finds models by import, so its own command has to come through this module:
`python -m sinkprune_core.evaluation.harness run --model sinkprune --model_args pretrained=smol-dlm,mc_num=32 --tasks piqa`.

Dimensions: B batch, T sequence position.
"""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace

import torch

try:
    from lm_eval import utils
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "benchmarks need lm-evaluation-harness: pip install 'sinkprune[eval]'"
    ) from error
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs, resolve_max_length
from tqdm.auto import tqdm

from sinkprune_core.diffusion.sampling import SAMPLERS, Sampler, decode, generate
from sinkprune_core.evaluation.likelihood import batches, exact_log_likelihood, log_likelihood
from sinkprune_core.evaluation.protocols import protocol
from sinkprune_core.models.language_model import LanguageModel, load

WAVE = 16  # batches between two saves of finished requests into the harness's cache
SAMPLER_OPTIONS = [field.name for field in fields(Sampler) if field.name not in ("length", "guidance")]


@register_model("sinkprune")
class HarnessModel(TemplateLM):
    """A `LanguageModel` that answers the harness's three kinds of request.

    `pretrained` is a name or folder for `load`, or a `LanguageModel` (then `dtype` and `device` are its own).
    A diffusion model scores by `protocol` with `mc_num` draws (as many of them share a grid of noise levels as the
    protocol says and as divide `mc_num`; `batch_size` is for speed only) and writes by `sampler`, a name of
    `diffusion.SAMPLERS`, changed by any of its fields as a further argument; `guidance` is for both. An autoregressive
    model is exact and takes none of these except `temperature`. `gen_length` tokens are written per request (None: the
    task's max_gen_toks, or 256) in as many steps, unless `steps` says less. `truncation` cuts contexts that do not fit
    `max_length` (None: all positions) from the left; otherwise they are an error. `is_check_greedy` also asks whether
    the diffusion model would write a target, revealing its surest token first, one forward per token.

    Differences from the published code: an empty context is the first special token, not nothing; generated text is cut
    at end-of-text and stop strings for every model; requests are seeded by their text, so order and cache change nothing.
    """

    def __init__(
        self,
        pretrained: str | LanguageModel,
        dtype: str = "float32",
        device: str | None = None,
        batch_size: int | str = 32,
        max_batch_size: int | None = None,
        protocol: str | None = None,
        mc_num: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        gen_length: int | None = None,
        temperature: float | None = None,
        max_length: int | None = None,
        truncation: bool = False,
        add_bos_token: bool = False,
        is_check_greedy: bool = False,
        seed: int = 0,
        **options: object,
    ):
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1 or max_batch_size is not None:
            raise ValueError(
                f"batch_size={batch_size!r} must be a positive number, and max_batch_size={max_batch_size} must be left out: batches are not sized automatically"
            )
        if unknown := sorted(set(options) - set(SAMPLER_OPTIONS)):
            raise ValueError(
                f"unknown model argument {unknown[0]!r}; besides those of HarnessModel there are the sampler's: {', '.join(SAMPLER_OPTIONS)}"
            )
        if sampler is not None and sampler not in SAMPLERS:
            raise ValueError(f"sampler={sampler!r} is unknown; choose one of {', '.join(SAMPLERS)}")
        how = _protocol(protocol, mc_num, guidance)
        self.lm = lm = (
            pretrained if isinstance(pretrained, LanguageModel) else load(pretrained, dtype, _device(device))
        )
        asked = {
            "protocol": protocol,
            "mc_num": mc_num,
            "guidance": guidance,
            "sampler": sampler,
            **options,
            "is_check_greedy": is_check_greedy or None,
        }
        if not lm.is_diffusion and (
            asked := {name: value for name, value in asked.items() if value is not None}
        ):
            raise ValueError(
                f"{', '.join(f'{name}={value}' for name, value in asked.items())} cannot be used: {lm.name} is autoregressive, its likelihood is exact and it writes from left to right"
            )
        if lm.tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {lm.name} has no end-of-text token, with which texts begin and end here: set tokenizer.eos_token"
            )
        if add_bos_token and lm.tokenizer.bos_token_id is None:
            raise ValueError(
                f"add_bos_token=True needs a tokenizer with a first token, and that of {lm.name} has none: leave it out"
            )
        positions = resolve_max_length(lm.model.config, lm.tokenizer)
        if max_length is not None and not 1 < max_length <= positions:
            raise ValueError(
                f"max_length={max_length} must lie in 2 … {positions}, the positions of {lm.name}"
            )
        self.tokenizer, self.batch_size, self.max_length = (
            lm.tokenizer,
            int(batch_size),
            max_length or positions,
        )
        self.how = how if lm.is_diffusion else None
        self.sampler, self.options = SAMPLERS[sampler or "llada"], {**options, "guidance": guidance or 0.0}
        self.gen_length, self.temperature, self.seed = gen_length, temperature, seed
        self.truncation, self.add_bos_token, self.is_check_greedy = truncation, add_bos_token, is_check_greedy
        if gen_length is not None:
            self._sampler(gen_length, {})  # options that do not fit one another are told now

    # what the harness asks about

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        return (
            self.tokenizer.eos_token_id
            if self.tokenizer.bos_token_id is None
            else self.tokenizer.bos_token_id
        )

    @property
    def tokenizer_name(self) -> str:
        return (self.tokenizer.name_or_path or self.lm.name).replace("/", "__")

    def get_model_info(self) -> dict[str, object]:
        """Return what the result depends on besides tasks, for the harness's record."""
        names = (
            "max_length",
            "truncation",
            "add_bos_token",
            "gen_length",
            "temperature",
            "is_check_greedy",
            "seed",
        )
        how = (
            {}
            if self.how is None
            else {
                "protocol": asdict(self.how),
                "sampler": asdict(self.sampler),
                "sampler_options": self.options,
            }
        )
        return {
            "model_name": self.lm.name,
            "kind": self.lm.kind,
            **{name: getattr(self, name) for name in names},
            **how,
        }

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        special = add_special_tokens is not False
        ids = self.tokenizer.encode(
            string,
            add_special_tokens=special
            and not string.startswith(self.tokenizer.decode([self.prefix_token_id])),
        )
        return (
            [self.tokenizer.bos_token_id, *ids]
            if self.add_bos_token and special and ids[:1] != [self.tokenizer.bos_token_id]
            else ids
        )

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise ValueError(
                f"the tokenizer of {self.lm.name} has no chat template: leave apply_chat_template out"
            )
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    # likelihood

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: object,
    ) -> list[tuple[float, bool]]:
        extra = (
            int(self.how.visible_end) if self.lm.is_diffusion else -1
        )  # the last token is never fed to an autoregressive model
        pairs = [self._fit(context, target, extra) for _, context, target in requests]
        answers: list = [None] * len(requests)
        order = sorted(
            range(len(requests)), key=lambda index: len(requests[index][1]) + len(requests[index][2])
        )
        for part in self._parts(order, self.batch_size * WAVE, "loglikelihood", disable_tqdm):
            for index, answer in zip(part, self._score([pairs[index] for index in part]), strict=True):
                answers[index] = answer
                self.cache_hook.add_partial("loglikelihood", requests[index][0], answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts, in nats, in windows of `max_length` as the harness's own models do; a bound for a diffusion model."""
        answers, room = (
            [],
            self.max_length - self.lm.is_diffusion,
        )  # a causal model never sees the last token of a window
        how = (
            replace(self.how, visible_end=False) if self.lm.is_diffusion else None
        )  # the end of a window is not that of the text
        for part in self._parts(
            [request.args for request in requests], self.batch_size, "loglikelihood_rolling", disable_tqdm
        ):
            windows = [
                list(
                    utils.get_rolling_token_windows(
                        self.tok_encode(text), self.prefix_token_id, room, context_len=1
                    )
                )
                for (text,) in part
            ]
            values = iter(
                self._score(
                    [
                        tuple(map(torch.tensor, utils.make_disjoint_window(window)))
                        for texts in windows
                        for window in texts
                    ],
                    how,
                )
            )
            for args, texts in zip(part, windows, strict=True):
                answers.append(float(sum(next(values)[0] for _ in texts)))
                self.cache_hook.add_partial("loglikelihood_rolling", args, answers[-1])
        return answers

    def _score(self, pairs: list[tuple[torch.Tensor, torch.Tensor]], how=None) -> list[tuple[float, bool]]:
        if not self.lm.is_diffusion:
            frame = exact_log_likelihood(self.lm, pairs, self.batch_size)
            return list(zip(frame.value.tolist(), frame.greedy.tolist(), strict=True))
        values = (
            log_likelihood(self.lm, pairs, how or self.how, self.seed, self.batch_size)
            .groupby("sequence")
            .value.mean()
            .tolist()
        )
        greedy = [self.is_check_greedy and self._would_write(*pair) for pair in pairs]
        return list(zip(values, greedy, strict=True))

    def _would_write(self, prompt: torch.Tensor, target: torch.Tensor) -> bool:
        surest_first = Sampler(len(target), len(target), None, "low_confidence", guidance=self.how.guidance)
        return torch.equal(generate(self.lm, prompt[None], surest_first)[0, len(prompt) :], target)

    # generation

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Write a continuation per request, cut at the first end-of-text token or stop string."""
        jobs, seen = [], Counter()
        for request in requests:
            context, asked = request.args
            kwargs = dict(normalize_gen_kwargs(asked, 256))
            length = kwargs["max_gen_toks"] if self.gen_length is None else self.gen_length
            sampler = self._sampler(length, kwargs)
            prompt, _ = self._fit(
                self.tok_encode(context) or [self.prefix_token_id], [self.eot_token_id] * length, 0
            )
            name = tuple(prompt.tolist())
            jobs.append(
                (len(prompt), prompt, tuple(kwargs["until"]), sampler, (name, seen[name]), request.args)
            )
            seen[name] += 1  # repetitions of a request are different samples
        answers: list = [None] * len(jobs)
        order = sorted(range(len(jobs)), key=lambda index: (repr(jobs[index][2:4]), jobs[index][0]))
        for part in self._parts(order, self.batch_size, "generate_until", disable_tqdm):
            while part:  # requests with other settings than the first one's wait for the next round
                now = [index for index in part if jobs[index][2:4] == jobs[part[0]][2:4]]
                part = [index for index in part if index not in now]
                for index, text in zip(now, self._write([jobs[index] for index in now]), strict=True):
                    answers[index] = text
                    self.cache_hook.add_partial("generate_until", jobs[index][5], text)
        return answers

    def _sampler(self, length: int, kwargs: dict[str, object]) -> Sampler:
        """Return how to write `length` tokens: the preset, then what the task asks for, then the model's arguments."""
        if unknown := sorted(
            set(kwargs) - {"until", "do_sample", "temperature", "top_p", "top_k", "max_gen_toks"}
        ):
            raise ValueError(
                f"generation argument {unknown[0]!r} is not known; there are until, max_gen_toks, do_sample, temperature, top_p and top_k"
            )
        shaping = {
            name: kwargs[name]
            for name in ("top_p", "top_k")
            if kwargs.get("do_sample") and kwargs.get(name) is not None
        }
        if shaping and not self.lm.is_diffusion:
            raise ValueError(f"{shaping} cannot be used: {self.lm.name} samples by temperature alone")
        temperature = (
            self.temperature if self.temperature is not None else float(kwargs.get("temperature", 0.0))
        )
        return replace(
            self.sampler,
            **{
                "length": length,
                "steps": length,
                "block": None,
                "temperature": temperature,
                **shaping,
                **self.options,
            },
        )

    def _write(self, jobs: list[tuple]) -> list[str]:
        prompts, stops, sampler, names = (
            [job[1] for job in jobs],
            jobs[0][2],
            jobs[0][3],
            [job[4] for job in jobs],
        )
        width = max(map(len, prompts))
        prompt_BT, mask_BT = (
            torch.full((len(jobs), width), self.prefix_token_id),
            torch.zeros(len(jobs), width, dtype=torch.long),
        )
        for row, prompt in enumerate(prompts):
            prompt_BT[row, width - len(prompt) :], mask_BT[row, width - len(prompt) :] = prompt, 1
        ends = {
            self.eot_token_id,
            *(
                index
                for index, token in self.tokenizer.added_tokens_decoder.items()
                if token.special and token.content in stops
            ),
        }
        finished = set()

        def all_stopped(ids_BT: torch.Tensor) -> bool:
            finished.update(
                row
                for row in range(len(jobs))
                if row not in finished and self._cut(ids_BT[row, width:], ends, stops)[1]
            )
            return len(finished) == len(jobs)

        options = {"seed": self.seed, "attention_mask_BT": mask_BT, "names": names, "until": all_stopped}
        if self.lm.is_diffusion:
            ids_BT = generate(self.lm, prompt_BT, sampler, **options)
        else:
            ids_BT = decode(self.lm, prompt_BT, sampler.length, sampler.temperature, **options)
        return [self._cut(row_T[width:], ends, stops)[0] for row_T in ids_BT]

    def _cut(self, ids_T: torch.Tensor, ends: set[int], stops: Sequence[str]) -> tuple[str, bool]:
        """Return the text before the first end token, mask or stop string, and whether one of the first and last kind was there."""
        ids = ids_T.tolist()
        end = next(
            (place for place, token in enumerate(ids) if token in ends or token == self.lm.mask_token_id),
            len(ids),
        )
        whole = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
        text = whole[
            : min((whole.index(stop) for stop in stops if stop and stop in whole), default=len(whole))
        ]
        return text, len(text) < len(whole) or (end < len(ids) and ids[end] in ends)

    # lengths and order

    def _fit(self, context: list[int], target: list[int], extra: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return context and target as tensors, the context cut from the left where allowed; raise ValueError where it does not fit."""
        room = self.max_length - len(target) - extra
        if len(context) > room and (room < 1 or not self.truncation):
            way = (
                "use fewer shots, a larger max_length or truncation=True, which cuts contexts from the left"
                if room >= 1
                else "use a larger max_length"
            )
            raise ValueError(
                f"a context of {len(context)} tokens and a target of {len(target)} exceed max_length={self.max_length} of {self.lm.name}: {way}"
            )
        return torch.tensor(context[-room:], dtype=torch.long), torch.tensor(target, dtype=torch.long)

    def _parts(self, items: list, size: int, name: str, disable_tqdm: bool) -> tqdm:
        return tqdm(
            list(batches(items, size)), desc=f"{name} {self.lm.name}", unit="batch", disable=disable_tqdm
        )


def _device(name: str | None) -> str:
    """Return the device; the harness's command asks for `cuda:0` even where there is none, so that falls back as its own models do."""
    if name is None or not name.startswith("cuda") or torch.cuda.is_available():
        return name or ("cuda" if torch.cuda.is_available() else "cpu")
    warnings.warn(f"device={name!r} is not there: using the CPU", stacklevel=3)
    return "cpu"


def _protocol(name: str | None, mc_num: int | None, guidance: float | None):
    how = protocol(name or "llada")
    draws = how.draws if mc_num is None else mc_num
    return replace(
        how,
        draws=draws,
        grid=math.gcd(draws, how.grid),
        guidance=how.guidance if guidance is None else guidance,
    )


def main() -> None:
    """Run lm-evaluation-harness's own command, with the model `sinkprune` registered."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
