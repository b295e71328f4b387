"""Every model that `load` returns as a model of lm-evaluation-harness, registered by import as `sinkprune`.

Dimensions: B batch, T sequence position, P tokens of a prompt, L tokens of a target or of what is written.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from itertools import chain, islice
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import torch
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import Collator, GenKwargs, normalize_gen_kwargs, resolve_max_length
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from sinkprune.evaluation.conditional_likelihood import Pair, exact_log_likelihood, log_likelihood
from sinkprune.evaluation.protocols import SAMPLERS, Protocol, protocol
from sinkprune.models.devices import choose_device
from sinkprune.models.loading import load
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.encoding import without_mask
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.values import check_choice, in_short

BATCHES_PER_SAVE = 16  # batches between two saves of finished requests into the harness's cache
DEFAULT_LENGTH = 256  # tokens to write where neither the task nor the model says how many
SAMPLER_OPTIONS = [field.name for field in fields(Sampler) if field.name not in ("length", "guidance")]
DIFFUSION_OPTIONS = ("protocol", "mc_num", "guidance", "sampler", "is_check_greedy")  # and extra ones
TASK_OPTIONS = ("until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k")  # of one to write
NonNegative = Annotated[FiniteFloat, Field(ge=0)]


class HarnessOptions(BaseModel):
    """What `HarnessModel` takes besides a model. Further arguments are fields of the sampler."""

    model_config = ConfigDict(extra="allow", frozen=True)

    dtype: str = "float32"  # of a model that is loaded by name
    device: str | None = None  # of a model that is loaded by name; None: a GPU where there is one
    batch_size: PositiveInt = 32  # requests at once, for speed only
    max_batch_size: None = None  # batches are not sized automatically
    protocol: str | None = None  # how a diffusion model scores: a name of `PROTOCOLS`; None: `llada`
    mc_num: int | None = None  # draws per target; None: as many as the protocol has
    guidance: NonNegative | None = None  # of scores and texts; None: that of the protocol, and none for texts
    sampler: str | None = None  # how a diffusion model writes: a name of `SAMPLERS`; None: `llada`
    gen_length: PositiveInt | None = None  # tokens written per request; None: the task's max_gen_toks, or 256
    temperature: NonNegative | None = None  # of what is written; None: the task's
    max_length: int | None = None  # most tokens of a sequence; None: all positions of the model
    truncation: bool = False  # whether too long contexts are cut from the left; else they are an error
    add_bos_token: bool = False  # whether a first token is put before every context
    is_check_greedy: bool = False  # whether to ask if a diffusion model would write a target, token by token
    seed: int = 0  # of all random numbers

    @property
    def of_sampler(self) -> dict[str, object]:
        """The fields of the sampler that were given."""
        return self.model_extra or {}


class GenerationRequest(NamedTuple):
    """One text to write; requests with equal settings can share a batch."""

    args: tuple  # the harness's, for its cache
    settings: tuple[Sequence[str], Sampler]  # stop strings and how to write
    prompt_P: torch.Tensor
    name: object  # seeds its random numbers

    @property
    def length(self) -> int:
        """Return the number of tokens of the prompt."""
        return len(self.prompt_P)


def read_options(given: dict[str, object]) -> HarnessOptions:
    """Return checked options; raise ValueError, in one line, for one that is unknown or cannot be."""
    unknown = sorted(set(given) - set(HarnessOptions.model_fields) - set(SAMPLER_OPTIONS))
    if unknown:
        raise ValueError(
            f"unknown model argument {unknown[0]!r}; there are {', '.join(HarnessOptions.model_fields)}, and "
            f"the sampler's: {', '.join(SAMPLER_OPTIONS)}"
        )

    try:
        return HarnessOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ValueError(
            f"model argument {name}={given[name]!r} cannot be: {first['msg']}; change it or leave it out"
        ) from None


class HarnessModel(TemplateLM):
    """A `LanguageModel`, or what `load` makes of a name, that answers the harness's three kinds of request.

    `options` are the fields of `HarnessOptions`, and those of a `Sampler`. An autoregressive model is exact.
    Raises ValueError for arguments that do not fit the model.

    Differences from the published code: an empty context is the first special token, not nothing; generated
    text is cut at end-of-text and stop strings for every model; requests are seeded by their text, so order
    and cache change nothing; as many draws share a grid of noise levels as the protocol says and as divide
    `mc_num`.
    """

    def __init__(self, pretrained: str | LanguageModel, **options: object):
        super().__init__()
        self.options = asked = read_options(options)
        check_choice("sampler", asked.sampler or "llada", SAMPLERS)
        how = protocol(asked.protocol or "llada")
        draws = how.draws if asked.mc_num is None else asked.mc_num
        guidance = how.guidance if asked.guidance is None else asked.guidance
        how = replace(how, draws=draws, grid=math.gcd(draws, how.grid), guidance=guidance)

        if not isinstance(pretrained, LanguageModel):
            device = asked.device or "auto"
            if device.startswith("cuda") and not torch.cuda.is_available():
                device = "auto"  # the harness's command asks for cuda:0 even where there is none
            pretrained = load(pretrained, asked.dtype, choose_device(device))

        self.lm = lm = pretrained
        asks = {*DIFFUSION_OPTIONS, *asked.of_sampler}

        given = asked.model_dump(include=asks, exclude_defaults=True, exclude_none=True)
        if given and not lm.is_diffusion:
            named = ", ".join(f"{name}={value}" for name, value in given.items())
            raise ValueError(
                f"{named} cannot be used: {lm.name} is autoregressive, its likelihood is exact "
                "and it writes from left to right"
            )

        self.tokenizer: Any = _tokenizer_of(lm)  # transformers does not say of what types its attributes are
        self.batch_size = asked.batch_size
        positions = resolve_max_length(lm.model.config, self.tokenizer)

        self.max_length = asked.max_length or positions
        if not 1 < self.max_length <= positions:
            raise ValueError(
                f"max_length={self.max_length} must lie in 2 … {positions}, the positions of {lm.name}"
            )

        self.how = how if lm.is_diffusion else None
        self.sampler = SAMPLERS[asked.sampler or "llada"]
        if asked.gen_length is not None:
            self._sampler(asked.gen_length, {})  # options that do not fit one another are an error now

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
        """Return the token ids of a text, in which no mask stands.

        No first token is put before a text that begins with it.
        """
        special = add_special_tokens is not False
        has_first_token = string.startswith(self.tokenizer.decode([self.prefix_token_id]))
        ids = self.tokenizer.encode(string, add_special_tokens=special and not has_first_token)
        ids = without_mask(ids, self.tokenizer, self.lm.mask_token_id)

        first = self.tokenizer.bos_token_id
        if self.options.add_bos_token and special and first is not None and ids[:1] != [first]:
            return [first, *ids]
        return ids

    def apply_chat_template(self, chat_history: list[dict], add_generation_prompt: bool = True) -> str:
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
        """Return the log-likelihood of every target in nats, and whether the model would write it.

        A request is the harness's arguments, and the tokens of context and target.
        """
        extra = -1  # the last token is never fed to an autoregressive model
        if self.how is not None:
            extra = int(self.how.visible_end)

        asked = [(args, self._fit(context, target, extra)) for args, context, target in requests]

        def answer(part: list[tuple]) -> list[tuple[float, bool]]:
            return self._score([pair for _, pair in part], self.how)

        by_length = Collator(asked, sort_fn=lambda request: sum(map(len, request[1])))
        size = self.batch_size * BATCHES_PER_SAVE
        return self._answers("loglikelihood", by_length, size, answer, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts in nats, in windows as the harness's own models do it."""
        how, length = self.how, self.max_length
        if how is not None:
            how = replace(how, visible_end=False)  # the end of a window is not that of the text
            length -= 1  # a causal model never sees the last token of a window, and can have one more

        def answer(part: list[tuple[tuple[str]]]) -> list[float]:
            windows = []  # of each text: pairs that fit the model and cover every token once
            for (args,) in part:
                ids = self.tok_encode(args[0])
                rolling = utils.get_rolling_token_windows(ids, self.prefix_token_id, length, 1)
                disjoint = map(utils.make_disjoint_window, rolling)
                windows.append([tuple(map(torch.tensor, window)) for window in disjoint])

            scores = iter(self._score(list(chain.from_iterable(windows)), how))
            totals = []
            for pairs in windows:
                values = [value for value, _ in islice(scores, len(pairs))]
                totals.append(sum(values, 0.0))

            return totals

        in_order = Collator([(request.args,) for request in requests], sort_fn=lambda _: 0)
        return self._answers("loglikelihood_rolling", in_order, self.batch_size, answer, disable_tqdm)

    def _score(self, pairs: list[Pair], how: Protocol | None) -> list[tuple[float, bool]]:
        """Return the log-likelihood of every pair in nats and whether its target would be written."""
        if how is None:
            frame = exact_log_likelihood(self.lm, pairs, self.batch_size)
            return list(zip(frame.value.tolist(), frame.greedy.tolist(), strict=True))

        frame = log_likelihood(self.lm, pairs, how, self.options.seed, self.batch_size)
        values = frame.groupby("sequence").value.mean().tolist()
        greedy = [self.options.is_check_greedy and self._would_write(*pair, how) for pair in pairs]
        return list(zip(values, greedy, strict=True))

    def _would_write(self, prompt_P: torch.Tensor, target_L: torch.Tensor, how: Protocol) -> bool:
        length = len(target_L)
        sampler = Sampler(length, length, None, "low_confidence", guidance=how.guidance)
        [ids_T] = generate(self.lm, prompt_P[None], sampler)
        return torch.equal(ids_T[len(prompt_P) :], target_L)

    # writing

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Write a continuation per request, cut at the first end-of-text token or stop string."""
        wanted = []
        repetitions: Counter = Counter()  # repetitions of a request are different samples
        for request in requests:
            context, asked = request.arguments
            kwargs = normalize_gen_kwargs(asked, DEFAULT_LENGTH)
            length = self.options.gen_length or kwargs.get("max_gen_toks", DEFAULT_LENGTH)
            settings = _stop_strings(kwargs.get("until")), self._sampler(length, kwargs)
            ids = self.tok_encode(context) or [self.prefix_token_id]
            prompt_P, _ = self._fit(ids, [self.eot_token_id] * length, 0)
            prompt = tuple(prompt_P.tolist())
            name = (prompt, repetitions[prompt])
            wanted.append(GenerationRequest(request.args, settings, prompt_P, name))
            repetitions[prompt] += 1

        by_length = attrgetter("length")
        alike = Collator(wanted, by_length, attrgetter("settings"), group_by="gen_kwargs")
        return self._answers("generate_until", alike, self.batch_size, self._write, disable_tqdm)

    def _sampler(self, length: int, kwargs: GenKwargs) -> Sampler:
        """Return how to write `length` tokens: the preset, with changes of the task, then of the model."""
        unknown = sorted(set(kwargs) - set(TASK_OPTIONS))
        if unknown:
            raise ValueError(
                f"generation argument {unknown[0]!r} is not known; there are {', '.join(TASK_OPTIONS)}"
            )

        shaping: dict[str, object] = {}
        if kwargs.get("do_sample"):
            given = {name: kwargs.get(name) for name in ("top_p", "top_k")}
            shaping = {name: value for name, value in given.items() if value is not None}
        if shaping and not self.lm.is_diffusion:
            raise ValueError(f"{shaping} cannot be used: {self.lm.name} samples by temperature alone")

        own = self.options.temperature
        temperature = float(kwargs.get("temperature", 0.0)) if own is None else own
        changes: dict[str, object] = {"length": length, "steps": length, "block": None}
        changes |= {"temperature": temperature, **shaping, **self.options.of_sampler}

        return replace(self.sampler, **changes, guidance=self.options.guidance or 0.0)

    def _write(self, requests: list[GenerationRequest]) -> list[str]:
        """Return a text for each of some requests with equal settings; writing stops when all have ended."""
        stops, sampler = requests[0].settings
        prompts = [request.prompt_P for request in requests]
        shown = [torch.ones_like(prompt_P) for prompt_P in prompts]
        left = {"batch_first": True, "padding_side": "left"}
        prompt_BP = pad_sequence(prompts, padding_value=self.prefix_token_id, **left)
        width = prompt_BP.shape[1]
        added = self.tokenizer.added_tokens_decoder.items()
        ends = {index for index, token in added if token.special and token.content in stops}
        ends.add(self.eot_token_id)
        ended: set[int] = set()

        def all_ended(ids_BT: torch.Tensor) -> bool:
            for row, ids_T in enumerate(ids_BT):
                if row not in ended and self._cut(ids_T[width:], stops, ends)[1]:
                    ended.add(row)
            return len(ended) == len(requests)

        options = {
            "seed": self.options.seed,
            "attention_mask_BT": pad_sequence(shown, **left),
            "names": [request.name for request in requests],
            "until": all_ended,
        }

        if self.lm.is_diffusion:
            ids_BT = generate(self.lm, prompt_BP, sampler, **options)
        else:
            ids_BT = decode(self.lm, prompt_BP, sampler.length, sampler.temperature, **options)

        return [self._cut(ids_T[width:], stops, ends)[0] for ids_T in ids_BT]

    def _cut(self, ids_L: torch.Tensor, stops: Sequence[str], ends: set[int]) -> tuple[str, bool]:
        """Return a text before a token of `ends`, a mask or a stop string, whichever comes first, and whether
        it has ended for good: a mask may still become a token.
        """
        ids = ids_L.tolist()
        places = (place for place, token in enumerate(ids) if token in ends or token == self.lm.mask_token_id)
        end = next(places, len(ids))
        whole = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
        stopped = [whole.index(stop) for stop in stops if stop and stop in whole]
        is_over = bool(stopped) or (end < len(ids) and ids[end] in ends)

        return whole[: min(stopped, default=len(whole))], is_over

    # lengths and parts

    def _fit(self, context: list[int], target: list[int], extra: int) -> Pair:
        """Return context and target, which `extra` tokens follow, as tensors, the context cut from the left
        where that is allowed; raise ValueError where it does not fit.
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

    def _answers(
        self, name: str, asked: Collator, size: int, answer: Callable[[list], list], disable_tqdm: bool
    ) -> list:
        """Answer requests, which begin with the harness's arguments, in parts that are cached at once."""
        answers = []
        parts = list(asked.get_batched(size))
        for part in tqdm(parts, desc=f"{name} {self.lm.name}", unit="batch", disable=disable_tqdm):
            found = answer(part)
            for (args, *_), one in zip(part, found, strict=True):
                self.cache_hook.add_partial(name, args, one)
            answers += found

        return asked.get_original(answers)


register_model("sinkprune")(HarnessModel)


def _tokenizer_of(lm: LanguageModel) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model; raise ValueError for one that is not of transformers."""
    tokenizer = lm.text_tokenizer
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError(
            f"the tokenizer of {lm.name} is a {type(tokenizer).__name__}: lm-evaluation-harness needs one of "
            "transformers, with its chat template and its special tokens"
        )
    return tokenizer


def _stop_strings(until: object) -> tuple[str, ...]:
    """Return the texts that end what is written; raise ValueError for something else."""
    stops = [until] if isinstance(until, str) else until
    if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError(f"until={in_short(until)} must be a text or a list of texts")
    return tuple(stops)
