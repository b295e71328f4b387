"""The arguments of `HarnessModel`: what they may be, and what they stand for."""

import math
import warnings
from dataclasses import fields, replace

import torch

from sinkprune_core.diffusion.samplers import SAMPLERS, Sampler
from sinkprune_core.evaluation.protocols import Protocol, protocol
from sinkprune_core.models.language_model import LanguageModel

SAMPLER_OPTIONS = [field.name for field in fields(Sampler) if field.name not in ("length", "guidance")]


def check_batch_size(batch_size: int | str, max_batch_size: int | None) -> None:
    """Raise ValueError unless the batch size is a positive number and no automatic one is asked for."""
    is_positive = str(batch_size).isdigit() and int(batch_size) >= 1
    if not is_positive or max_batch_size is not None:
        raise ValueError(
            f"batch_size={batch_size!r} must be a positive number, and max_batch_size={max_batch_size} "
            "must be left out: batches are not sized automatically"
        )


def check_sampler(sampler: str | None, options: dict[str, object]) -> None:
    """Raise ValueError for an unknown preset of the sampler and for options that it does not have."""
    unknown = sorted(set(options) - set(SAMPLER_OPTIONS))
    if unknown:
        raise ValueError(
            f"unknown model argument {unknown[0]!r}; besides those of HarnessModel there are the sampler's: "
            f"{', '.join(SAMPLER_OPTIONS)}"
        )
    if sampler is not None and sampler not in SAMPLERS:
        raise ValueError(f"sampler={sampler!r} is unknown; choose one of {', '.join(SAMPLERS)}")


def check_kind(lm: LanguageModel, for_diffusion: dict[str, object]) -> None:
    """Raise ValueError where an autoregressive model is given arguments that only a diffusion model takes."""
    given = [f"{name}={value}" for name, value in for_diffusion.items() if value is not None]
    if given and not lm.is_diffusion:
        raise ValueError(
            f"{', '.join(given)} cannot be used: {lm.name} is autoregressive, its likelihood is exact and it "
            "writes from left to right"
        )


def check_tokenizer(lm: LanguageModel, add_bos_token: bool) -> None:
    """Raise ValueError where the tokenizer lacks an end-of-text token, or a first token that is asked for."""
    if lm.tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer of {lm.name} has no end-of-text token, with which texts begin and end here: "
            "set tokenizer.eos_token"
        )
    if add_bos_token and lm.tokenizer.bos_token_id is None:
        raise ValueError(
            f"add_bos_token=True needs a tokenizer with a first token, and that of {lm.name} has none: "
            "leave it out"
        )


def check_max_length(lm: LanguageModel, positions: int, asked: int | None) -> int:
    """Return the most tokens of a sequence: as many as `asked` for, or (None) all positions of the model."""
    if asked is None:
        return positions
    if not 1 < asked <= positions:
        raise ValueError(f"max_length={asked} must lie in 2 … {positions}, the positions of {lm.name}")
    return asked


def device_or_cpu(name: str | None) -> str:
    """Return the device; a CUDA device that is not there becomes the CPU, with a warning.

    The harness's command asks for `cuda:0` even where there is none; its own models fall back likewise.
    """
    has_cuda = torch.cuda.is_available()
    if name is None:
        return "cuda" if has_cuda else "cpu"
    if name.startswith("cuda") and not has_cuda:
        warnings.warn(f"device={name!r} is not there: using the CPU", stacklevel=3)
        return "cpu"
    return name


def protocol_with(name: str | None, mc_num: int | None, guidance: float | None) -> Protocol:
    """Return a protocol by name (None: `llada`).

    `mc_num` changes its number of draws and `guidance` its guidance, where they are given.
    """
    how = protocol(name or "llada")
    draws = how.draws if mc_num is None else mc_num
    if guidance is None:
        guidance = how.guidance
    return replace(how, draws=draws, grid=math.gcd(draws, how.grid), guidance=guidance)
