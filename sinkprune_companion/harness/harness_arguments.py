"""The arguments of `HarnessModel`: what they may be, and what they stand for."""

import math
from dataclasses import fields, replace
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError

from sinkprune_core.diffusion.samplers import SAMPLERS, Sampler
from sinkprune_core.evaluation.protocols import Protocol, protocol
from sinkprune_core.models.devices import choose_device
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.models.loading import load
from sinkprune_core.values import check_choice

SAMPLER_OPTIONS = [field.name for field in fields(Sampler) if field.name not in ("length", "guidance")]
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
    def sampler_options(self) -> dict[str, object]:
        """Return the fields of the sampler that were given."""
        return {**self.model_extra, "guidance": self.guidance or 0.0}

    def protocol_with_changes(self) -> Protocol:
        """Return the protocol, with the draws and the guidance that were given."""
        how = protocol(self.protocol or "llada")
        draws = how.draws if self.mc_num is None else self.mc_num
        guidance = how.guidance if self.guidance is None else self.guidance
        return replace(how, draws=draws, grid=math.gcd(draws, how.grid), guidance=guidance)

    def check_model(self, lm: LanguageModel) -> None:
        """Raise ValueError where the model does not take what was given."""
        names = ("protocol", "mc_num", "guidance", "sampler", *self.model_extra)
        given = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name) is not None]
        if self.is_check_greedy:
            given.append("is_check_greedy=True")
        if given and not lm.is_diffusion:
            raise ValueError(
                f"{', '.join(given)} cannot be used: {lm.name} is autoregressive, its likelihood is exact "
                "and it writes from left to right"
            )


def read_options(given: dict[str, object]) -> HarnessOptions:
    """Return checked options; raise ValueError, in one line, for one that is unknown or cannot be."""
    unknown = sorted(set(given) - set(HarnessOptions.model_fields) - set(SAMPLER_OPTIONS))
    if unknown:
        raise ValueError(
            f"unknown model argument {unknown[0]!r}; there are {', '.join(HarnessOptions.model_fields)}, and "
            f"the sampler's: {', '.join(SAMPLER_OPTIONS)}"
        )
    try:
        options = HarnessOptions(**given)
    except ValidationError as error:
        first = error.errors()[0]
        [name] = first["loc"]
        raise ValueError(
            f"model argument {name}={given[name]!r} cannot be: {first['msg']}; change it or leave it out"
        ) from None
    if options.sampler is not None:
        check_choice("sampler", options.sampler, SAMPLERS)
    return options


def open_model(pretrained: str | LanguageModel, options: HarnessOptions) -> LanguageModel:
    """Return the model itself, or load it by name on its device, or on the best where that is not there.

    The harness's command asks for `cuda:0` even where there is none; its own models fall back likewise.
    """
    if isinstance(pretrained, LanguageModel):
        return pretrained
    device = options.device or "auto"
    if device.startswith("cuda") and not torch.cuda.is_available():
        device = "auto"
    return load(pretrained, options.dtype, choose_device(device))
