"""Every model that `load` returns, dense or pruned, as a model of lm-evaluation-harness.

Importing this module registers the model `sinkprune` with the harness; `harness` is the command that does so.

Dimensions: B batch, T sequence position, P tokens of a prompt, L tokens of a target or of what is written.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby

import torch
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs, resolve_max_length
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from sinkprune_companion.harness.harness_arguments import open_model, read_options
from sinkprune_core.diffusion.samplers import SAMPLERS, Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.evaluation.conditional_likelihood import Pair, exact_log_likelihood, log_likelihood
from sinkprune_core.evaluation.protocols import Protocol
from sinkprune_core.evaluation.token_losses import batches
from sinkprune_core.models.language_model import LanguageModel

BATCHES_PER_SAVE = 16  # batches between two saves of finished requests into the harness's cache
DEFAULT_LENGTH = 256  # tokens to write where neither the task nor the model says how many
TASK_OPTIONS = ("until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k")  # of one to write


@dataclass(frozen=True)
class GenerationRequest:
    """What the harness asks to be continued."""

    prompt_P: torch.Tensor  # token ids of the context, int64 (P,)
    settings: tuple[tuple[str, ...], Sampler]  # strings before which the text ends, and how to write
    name: tuple[tuple[int, ...], int]  # seeds it: the tokens of the prompt, and how many before had the same
    args: tuple  # the harness's own arguments of the request, by which it keeps answers in its cache


@register_model("sinkprune")
class HarnessModel(TemplateLM):
    """A `LanguageModel` that answers the harness's three kinds of request.

    `pretrained` is a name or folder for `load`, or a `LanguageModel` (then `dtype` and `device` are its
    own); `options` are the fields of `HarnessOptions`, and those of a `Sampler`. An autoregressive model is
    exact. Raises ValueError for arguments that do not fit the model.

    Differences from the published code: an empty context is the first special token, not nothing; generated
    text is cut at end-of-text and stop strings for every model; requests are seeded by their text, so order
    and cache change nothing; as many draws share a grid of noise levels as the protocol says and as divide
    `mc_num`.
    """

    def __init__(self, pretrained: str | LanguageModel, **options: object):
        super().__init__()
        self.options = read_options(options)
        how = self.options.protocol_with_changes()
        self.lm = lm = open_model(pretrained, self.options)
        self.options.check_model(lm)
        self.tokenizer = lm.tokenizer
        self.batch_size = self.options.batch_size
        positions = resolve_max_length(lm.model.config, lm.tokenizer)
        self.max_length = self.options.max_length or positions
        if not 1 < self.max_length <= positions:
            raise ValueError(
                f"max_length={self.max_length} must lie in 2 … {positions}, the positions of {lm.name}"
            )
        self.how = how if lm.is_diffusion else None
        self.sampler = SAMPLERS[self.options.sampler or "llada"]
        if self.options.gen_length is not None:
            self._sampler(self.options.gen_length, {})  # options that do not fit one another are an error now

    # what the harness asks about

    @property
    def eot_token_id(self) -> int:
        """Return the end-of-text token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Return the token that stands for an empty context."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else first

    @property
    def tokenizer_name(self) -> str:
        """Return a name for the harness's cache of requests."""
        return (self.tokenizer.name_or_path or self.lm.name).replace("/", "__")

    def get_model_info(self) -> dict[str, object]:
        """Return what the result depends on besides tasks, for the harness's record."""
        info = self.options.model_dump(exclude={"dtype", "device", "batch_size", "max_batch_size"})
        info |= {"model_name": self.lm.name, "kind": self.lm.kind, "max_length": self.max_length}
        if self.how is not None:
            info |= {"protocol": asdict(self.how), "sampler": asdict(self.sampler)}
        return info

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Return the token ids of a text; no first token is put before a text that begins with it."""
        special = add_special_tokens is not False
        has_first_token = string.startswith(self.tokenizer.decode([self.prefix_token_id]))
        ids = self.tokenizer.encode(string, add_special_tokens=special and not has_first_token)
        first = [self.tokenizer.bos_token_id]
        if self.options.add_bos_token and special and ids[:1] != first:
            return first + ids
        return ids

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as one text; raise ValueError where the tokenizer has no chat template."""
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
        """Return the log-likelihood of every target in nats, and whether the model would write it."""
        # the last token is never fed to an autoregressive model
        extra = int(self.how.visible_end) if self.lm.is_diffusion else -1
        pairs = [self._fit(context, target, extra) for _, context, target in requests]
        answers: list = [None] * len(requests)
        order = sorted(range(len(pairs)), key=lambda index: len(requests[index][1]) + len(requests[index][2]))
        for part in self._parts(order, self.batch_size * BATCHES_PER_SAVE, "loglikelihood", disable_tqdm):
            scores = self._score([pairs[index] for index in part], self.how)
            for index, answer in zip(part, scores, strict=True):
                answers[index] = answer
                self.cache_hook.add_partial("loglikelihood", requests[index][0], answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts in nats, a bound for a diffusion model.

        Texts are scored in windows of `max_length`, as the harness's own models do it.
        """
        how = self.how
        if how is not None:
            how = replace(how, visible_end=False)  # the end of a window is not that of the text
        answers = []
        for part in self._parts(requests, self.batch_size, "loglikelihood_rolling", disable_tqdm):
            windows = [self._windows(*request.args) for request in part]
            scores = iter(self._score([pair for pairs in windows for pair in pairs], how))
            for request, pairs in zip(part, windows, strict=True):
                answers.append(sum((next(scores)[0] for _ in pairs), 0.0))
                self.cache_hook.add_partial("loglikelihood_rolling", request.args, answers[-1])
        return answers

    def _windows(self, text: str) -> list[Pair]:
        """Return a text as pairs of context and target that fit the model and cover every token once."""
        length = self.max_length
        if self.lm.is_diffusion:
            length -= 1  # a causal model never sees the last token of a window, and can have one more
        windows = utils.get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, length, 1)
        disjoint = map(utils.make_disjoint_window, windows)
        return [(torch.tensor(context), torch.tensor(target)) for context, target in disjoint]

    def _score(self, pairs: list[Pair], how: Protocol | None) -> list[tuple[float, bool]]:
        """Return the log-likelihood of every pair in nats and whether its target would be written."""
        if how is None:
            frame = exact_log_likelihood(self.lm, pairs, self.batch_size)
            return list(zip(frame.value.tolist(), frame.greedy.tolist(), strict=True))
        frame = log_likelihood(self.lm, pairs, how, self.options.seed, self.batch_size)
        values = frame.groupby("sequence").value.mean().tolist()
        greedy = [self.options.is_check_greedy and self._would_write(*pair) for pair in pairs]
        return list(zip(values, greedy, strict=True))

    def _would_write(self, prompt_P: torch.Tensor, target_L: torch.Tensor) -> bool:
        length = len(target_L)
        sampler = Sampler(length, length, None, "low_confidence", guidance=self.how.guidance)
        [ids_T] = generate(self.lm, prompt_P[None], sampler)
        return torch.equal(ids_T[len(prompt_P) :], target_L)

    # generation

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Write a continuation per request, cut at the first end-of-text token or stop string."""
        wanted = self._generation_requests(requests)
        answers: dict[tuple, str] = {}
        order = sorted(wanted, key=lambda request: (repr(request.settings), len(request.prompt_P)))
        for part in self._parts(order, self.batch_size, "generate_until", disable_tqdm):
            for _, group in groupby(part, lambda request: request.settings):
                alike = list(group)
                texts = write_texts(self.lm, alike, self.prefix_token_id, self.options.seed)
                for request, text in zip(alike, texts, strict=True):
                    answers[request.name] = text
                    self.cache_hook.add_partial("generate_until", request.args, text)
        return [answers[request.name] for request in wanted]

    def _generation_requests(self, requests: list[Instance]) -> list[GenerationRequest]:
        wanted = []
        repetitions: Counter = Counter()  # repetitions of a request are different samples
        for request in requests:
            context, asked = request.args
            kwargs = normalize_gen_kwargs(asked, DEFAULT_LENGTH)
            length = self.options.gen_length or kwargs["max_gen_toks"]
            sampler = self._sampler(length, kwargs)
            ids = self.tok_encode(context) or [self.prefix_token_id]
            prompt_P, _ = self._fit(ids, [self.eot_token_id] * length, 0)
            prompt = tuple(prompt_P.tolist())
            name = (prompt, repetitions[prompt])
            repetitions[prompt] += 1
            settings = tuple(kwargs["until"]), sampler
            wanted.append(GenerationRequest(prompt_P, settings, name, request.args))
        return wanted

    def _sampler(self, length: int, kwargs: dict[str, object]) -> Sampler:
        """Return how to write `length` tokens: the preset, with changes of the task, then of the model."""
        unknown = sorted(set(kwargs) - set(TASK_OPTIONS))
        if unknown:
            raise ValueError(
                f"generation argument {unknown[0]!r} is not known; there are {', '.join(TASK_OPTIONS)}"
            )
        shaping = {}
        if kwargs.get("do_sample"):
            shaping = {name: kwargs[name] for name in ("top_p", "top_k") if kwargs.get(name) is not None}
        if shaping and not self.lm.is_diffusion:
            raise ValueError(f"{shaping} cannot be used: {self.lm.name} samples by temperature alone")
        temperature = self.options.temperature
        if temperature is None:
            temperature = float(kwargs.get("temperature", 0.0))
        changes = {"length": length, "steps": length, "block": None, "temperature": temperature}
        return replace(self.sampler, **(changes | shaping | self.options.sampler_options))

    # lengths and batches

    def _fit(self, context: list[int], target: list[int], extra: int) -> Pair:
        """Return context and target as tensors, the context cut from the left where that is allowed.

        `extra` tokens follow the target. Raises ValueError where the context does not fit.
        """
        available = self.max_length - len(target) - extra  # positions for the context
        if len(context) > available and (available < 1 or not self.options.truncation):
            raise ValueError(
                f"a context of {len(context)} tokens and a target of {len(target)} exceed "
                f"max_length={self.max_length} of {self.lm.name}: use fewer shots, a larger max_length or "
                "truncation=True, which cuts contexts from the left"
            )
        prompt_P = torch.tensor(context[-available:], dtype=torch.long)
        return prompt_P, torch.tensor(target, dtype=torch.long)

    def _parts(self, items: list, size: int, name: str, disable_tqdm: bool) -> tqdm:
        parts = list(batches(items, size))
        return tqdm(parts, desc=f"{name} {self.lm.name}", unit="batch", disable=disable_tqdm)


# writing


def cut(lm: LanguageModel, ids_L: torch.Tensor, stops: Sequence[str], ends: set[int]) -> tuple[str, bool]:
    """Return a text before its end, and whether it has ended for good.

    It ends at a token of `ends` or a mask, or before a stop string, whichever comes first. A mask ends it for
    now only: it may still become a token.
    """
    ids = ids_L.tolist()
    places = (place for place, token in enumerate(ids) if token in ends or token == lm.mask_token_id)
    end = next(places, len(ids))
    whole = lm.tokenizer.decode(ids[:end], skip_special_tokens=True)
    stopped = [whole.index(stop) for stop in stops if stop and stop in whole]
    has_end_token = end < len(ids) and ids[end] in ends
    return whole[: min(stopped, default=len(whole))], bool(stopped) or has_end_token


def write_texts(
    lm: LanguageModel, requests: Sequence[GenerationRequest], padding_id: int, seed: int
) -> list[str]:
    """Return a text for each of some requests with equal settings; writing stops when all texts have ended.

    Prompts are padded on the left with `padding_id`, which is hidden from attention.
    """
    stops, sampler = requests[0].settings
    prompts = [request.prompt_P for request in requests]
    shown = [torch.ones_like(prompt_P) for prompt_P in prompts]
    prompt_BP = pad_sequence(prompts, batch_first=True, padding_value=padding_id, padding_side="left")
    width = prompt_BP.shape[1]
    special = lm.tokenizer.added_tokens_decoder.items()
    ends = {index for index, token in special if token.special and token.content in stops}
    ends.add(lm.tokenizer.eos_token_id)
    ended: set[int] = set()

    def all_ended(ids_BT: torch.Tensor) -> bool:
        for row in range(len(requests)):
            if row not in ended and cut(lm, ids_BT[row, width:], stops, ends)[1]:
                ended.add(row)
        return len(ended) == len(requests)

    options = {
        "seed": seed,
        "attention_mask_BT": pad_sequence(shown, batch_first=True, padding_side="left"),
        "names": [request.name for request in requests],
        "until": all_ended,
    }
    if lm.is_diffusion:
        ids_BT = generate(lm, prompt_BP, sampler, **options)
    else:
        ids_BT = decode(lm, prompt_BP, sampler.length, sampler.temperature, **options)
    return [cut(lm, ids_T[width:], stops, ends)[0] for ids_T in ids_BT]
