"""What a training run begins with: the embedded base, or any Llama, Qwen2 or Qwen3 causal language model."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from transformers import AutoTokenizer, PreTrainedModel

from sinkprune.files import known_digest
from sinkprune.models import embedded
from sinkprune.models.card import CARD
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.reader import Checkpoint
from sinkprune.models.weight_files import read_json
from sinkprune.runs.resume import VOLATILE
from sinkprune_companion import DATA
from sinkprune_core.language_model import LanguageModel, set_direction

EMBEDDED_BASE = "smol-ar"
FACTS = yaml.safe_load((DATA / "training.yml").read_text(encoding="utf-8"))
SHAPE = FACTS["shape"]  # of a model from scratch
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "tokenizer.model")
RESERVED = re.compile(r"reserved|unused", re.IGNORECASE)


@dataclass(frozen=True)
class Base:
    """What is there before training: an autoregressive model, or a vocabulary alone."""

    name: str  # what `open_base` took
    stem: str  # the names of the trained models begin with it
    origin: str  # what an adapter says it belongs to
    checkpoint: Checkpoint
    mask_token_id: int | None  # None: of an autoregressive run whose base has no token for it
    vocabulary: Path | None = None  # of a run from scratch: where its own tokenizer lies

    def tokenizer(self):
        """Return the tokenizer, of a run from scratch its own."""
        if self.vocabulary is not None:
            return AutoTokenizer.from_pretrained(self.vocabulary)
        return self.checkpoint.tokenizer()

    def fingerprint(self) -> str:
        """Return a SHA-256 prefix over weights, configuration and tokenizer, rotary frequencies among them.

        A run belongs to one base: with other weights or another vocabulary it would go on as another run.
        """
        if self.name == EMBEDDED_BASE:
            return embedded.BASE.member_sha256[:16]  # its folder is compared with what was written

        names = {*self.checkpoint.files.file_of.values(), *TOKENIZER_FILES}
        files = sorted(self.checkpoint.folder / name for name in names)
        settings = {name: value for name, value in self.checkpoint.raw.items() if name not in VOLATILE}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())

        for file in files:
            if file.is_file():
                digest.update(f"{file.name} {known_digest(file)}".encode())

        return digest.hexdigest()[:16]

    def from_scratch(self, vocabulary: Path) -> "Base":
        """Return what a run from scratch begins with, whose tokenizer lies in a folder."""
        return replace(self, stem="scratch", vocabulary=vocabulary, mask_token_id=SHAPE["vocab_size"] - 1)

    def member(
        self, model: PreTrainedModel, kind: str, cls: type[LanguageModel] = LanguageModel
    ) -> LanguageModel:
        """Return `model`, this base with an adapter of a kind or a fresh one, as a language model.

        Its class is `InTraining` while the adapter lies beside its linears.

        Logits are shifted, but for a diffusion model from scratch: no causal model stands behind it.
        """
        is_diffusion = kind == "diffusion"
        ending = "ar-adapted"
        if is_diffusion:
            ending = "dlm"
        elif self.vocabulary:
            ending = "ar"

        return cls(
            set_direction(model, causal=not is_diffusion),
            self.tokenizer(),
            f"{self.stem}-{ending}",
            kind,
            mask_token_id=self.mask_token_id if is_diffusion else None,
            logits_shifted=not (self.vocabulary and is_diffusion),
        )


@dataclass(frozen=True, eq=False)
class InTraining(LanguageModel):
    """A model with an adapter beside its linears: it gives logits and losses, and cannot be pruned."""

    def __post_init__(self):
        self._check_kind()


def open_base(name: str, mask_token: str | None = None, length: int = 0, kind: str = "diffusion") -> Base:
    """Return the base behind a name (`smol-ar`, a hub id of the table of models, a folder), without weights.

    `kind` is what the base becomes: only a diffusion model needs a token that stands for a mask. Raises
    ValueError for a model of another type, one that is a diffusion model already, one with fewer positions
    than `length`, and what `mask_token_of` raises.
    """
    if name == EMBEDDED_BASE:
        checkpoint = Checkpoint(embedded.base_folder(), causal=True)
        origin = f"{embedded.BASE.package}=={embedded.BASE.version}"
        return Base(name, "smol", origin, checkpoint, embedded.MASK_TOKEN_ID)

    checkpoint = open_checkpoint(name)
    config = checkpoint.config
    if config.model_type not in FACTS["types"]:
        raise ValueError(
            f"base {name} is of type {config.model_type!r}: the adapter knows the linears of "
            f"{', '.join(FACTS['types'])}; give one of these"
        )

    if read_json(checkpoint.folder / CARD).get("recipe"):
        raise ValueError(
            f"base {name} is pruned, and training makes it dense: "
            "`sinkprune recover` trains it with its zeros held"
        )

    if checkpoint.kind != "autoregressive":
        raise ValueError(
            f"base {name} is a diffusion model already: training begins with a causal language model, "
            "give the one it came from"
        )

    if length > config.max_position_embeddings:
        raise ValueError(
            f"length={length} exceeds the {config.max_position_embeddings} positions of base {name}: "
            "use shorter crops"
        )

    is_needed = kind == "diffusion"
    mask_token_id = mask_token_of(checkpoint.tokenizer(), config.vocab_size, mask_token, is_needed)
    return Base(name, Path(name).name, name, checkpoint, mask_token_id)


def mask_token_of(tokenizer, vocabulary: int, asked: str | None = None, is_needed: bool = True) -> int | None:
    """Return the number of the token that is to stand for a mask: `asked`, a token or its number, else the
    tokenizer's own, a row of the embedding that belongs to no token, or a token called reserved or unused.

    Raises ValueError where `asked` is none of the `vocabulary` tokens, and where there is none and one
    `is_needed`; otherwise it is None.
    """
    known = tokenizer.get_vocab()
    if asked is not None:
        chosen = known.get(asked, int(asked) if asked.isdecimal() else vocabulary)
        if chosen >= vocabulary:
            raise ValueError(
                f"mask_token={asked!r} is neither a token of the vocabulary nor a number below {vocabulary}: "
                "name one that no text contains"
            )
        return chosen

    if tokenizer.mask_token_id is not None:
        return tokenizer.mask_token_id

    beyond = max(known.values()) + 1
    if beyond < vocabulary:
        return beyond

    reserved = [index for token, index in known.items() if RESERVED.search(token)]
    if not reserved and is_needed:
        raise ValueError(
            f"no token of the {vocabulary} is a mask, reserved or unused: "
            "name one that no text contains with --mask-token"
        )

    return min(reserved, default=None)
