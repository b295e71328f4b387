"""The settings of a training run, and what of a former run it may go on with."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from sinkprune.files import json_of, read_text
from sinkprune.models.adapters import CONFIG, WEIGHTS
from sinkprune.models.devices import choose_dtype
from sinkprune.models.weight_files import read_json
from sinkprune_companion.training.base import EMBEDDED_BASE, Base
from sinkprune_core.language_model import KINDS
from sinkprune_core.values import Count, Number, PositiveShare, Share, check_choice, check_fields

SETTINGS = "training.json"  # where a run and an exported adapter keep their settings
EXPORTED_LOG = "training_log.jsonl"  # the log of what was exported
FREE = ("tokens", "decay_share", "learning_rate", "warmup_steps", "dtype")  # may change while a run goes on
LOW_NOISE = 0.2  # share of masks that a diffusion model from scratch begins with
LOW_NOISE_TOKENS = 768_000  # training tokens for which it keeps to that
DTYPES = ("bfloat16", "float32")  # float16 would need its losses scaled

Tokens = Annotated[int, Field(ge=1, le=10**13, description="a whole number from 1 to 10^13")]
BatchTokens = Annotated[int, Field(ge=1, le=2**24, description="a whole number from 1 to 2^24")]
Rank = Annotated[int, Field(ge=1, le=65536, description="a whole number from 1 to 65,536")]
Seed = Annotated[int, Field(ge=0, lt=2**63, description="a whole number of at least 0 and below 2^63")]


@dataclass(frozen=True)
class Training:
    """The settings of a run: two runs with equal settings on equal data from step 0 on are the same run.

    The learning rate warms up linearly, stays, and falls linearly to zero at the end, so that a longer run
    continues from the flat part. Raises ValueError for settings that cannot work.
    """

    kind: str = "diffusion"  # what the base becomes, or "autoregressive": decides attention and loss
    base: str = EMBEDDED_BASE  # what is trained: smol-ar, a hub id of the table of models, or a folder
    from_scratch: bool = False  # a fresh small Llama is trained whole, with a vocabulary of its own
    mask_token: str | None = None  # a token of another base, or its number; None: one that no text produces
    tokens: Tokens = 1_024_000  # training tokens in all
    lengths: tuple[int, ...] = (64, 128, 256, 512)  # tokens per crop; all crops of a batch have one of these
    batch_tokens: BatchTokens = 2048  # tokens per step
    learning_rate: PositiveShare = 1e-3  # of the flat part
    rank: Rank = 32  # of the adapter's matrices
    alpha: Count = 64  # the adapter's product is multiplied by alpha / rank
    warmup_steps: Count = 20  # over which the learning rate rises from zero
    decay_share: Share = 0.2  # share of all steps, at the end, over which the learning rate falls to zero
    seed: Seed = 0  # seed of the fresh weights, of the choice of crops and of the noise
    earlier_tokens: Number = 0  # tokens that the adapter had seen under other settings before step 0
    dtype: str = "bfloat16"  # of the base's weights and of the products; what is trained is always float32

    def __post_init__(self):
        object.__setattr__(self, "lengths", tuple(self.lengths))  # JSON has lists
        check_fields(self)
        check_choice("kind", self.kind, KINDS)
        check_choice("dtype", self.dtype, DTYPES)

        if self.from_scratch and self.base != EMBEDDED_BASE:
            raise ValueError(f"base={self.base!r} does nothing from scratch: leave it out")

        if not self.lengths or min(self.lengths) < 2:
            raise ValueError(f"lengths={self.lengths} must be at least 2 each: the first is never predicted")

        if max(self.lengths) > self.batch_tokens:
            raise ValueError(
                f"lengths={self.lengths} must not exceed batch_tokens={self.batch_tokens}: "
                "a batch holds at least one crop"
            )

    @property
    def steps(self) -> int:
        """The number of optimizer steps, which cover all tokens."""
        return -(-self.tokens // self.batch_tokens)

    def rate(self, step: int) -> float:
        """Return the learning rate at `step`."""
        warmed_up = min(1.0, (step + 1) / self.warmup_steps)
        decay_steps = max(1.0, self.steps * self.decay_share)
        return self.learning_rate * min(warmed_up, (self.steps - step) / decay_steps)

    def noise_level(self, step: int) -> float | None:
        """Return the noise level at `step`; None: levels are spread evenly, as in the NELBO.

        From scratch the first steps have few masks: with many, a model learns token frequencies for long.
        """
        is_early = step * self.batch_tokens < LOW_NOISE_TOKENS
        return LOW_NOISE if self.from_scratch and is_early else None


def training_dtype(name: str, device: str) -> str:
    """Return the dtype of a name; `auto` is bfloat16 on a device with units for it, else float32."""
    if name != "auto":
        return name
    return "bfloat16" if choose_dtype(name, device) == torch.bfloat16 else "float32"


def settings_of(file: Path) -> dict:
    """Return the settings of a run by field; a field that the file lacks has its default."""
    written = read_json(file)
    return {name: written.get(name, default) for name, default in asdict(Training()).items()}


def check_settings(config: Training, folder: Path) -> None:
    """Raise ValueError when `folder` holds the settings of a run that `config` does not go on with."""
    file = folder / SETTINGS
    if not file.exists():
        return

    former = settings_of(file) | dict.fromkeys(FREE)
    now = asdict(config) | dict.fromkeys(FREE)

    differing = sorted(name for name in now if json.dumps(former[name]) != json.dumps(now[name]))
    if differing:
        raise ValueError(
            f"{folder} holds a run with other settings ({', '.join(differing)}): "
            f"use another folder, or the former settings in {file.name}"
        )


def going_on(config: Training, base: Base, adapter: Path) -> Training:
    """Return the settings of a run that begins with an exported adapter of the base, its size and tokens.

    Raises FileNotFoundError or ValueError for a folder that is none.
    """
    exported = (CONFIG, WEIGHTS, SETTINGS, EXPORTED_LOG)
    missing = [name for name in exported if not (adapter / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{adapter} has no {' and no '.join(missing)}: "
            "start from a folder that `sinkprune train --export` wrote"
        )

    stated = read_json(adapter / CONFIG)
    origin = stated["base_model_name_or_path"]
    if origin != base.origin:
        raise ValueError(
            f"the adapter in {adapter} belongs to the base {origin!r}, not to {base.origin!r}: "
            "start from another, or from none"
        )

    seen = settings_of(adapter / SETTINGS)["earlier_tokens"] + rows_of(adapter / EXPORTED_LOG)[-1]["tokens"]
    return replace(config, earlier_tokens=seen, rank=stated["r"], alpha=stated["lora_alpha"])


def rows_of(file: Path) -> list[dict]:
    """Return the rows of an exported log in their order; raise ValueError for a file that is none."""
    try:
        return [json_of(line) for line in read_text(file).splitlines()]
    except ValueError as error:
        raise ValueError(f"{file} is no log of a training: {error}") from None
