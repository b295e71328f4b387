"""A model whose blocks come from disk one at a time, for models that memory cannot hold.

Dimensions: B batch, T sequence position, D hidden width, N selected positions.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Cache, GenerationConfig

from sinkprune.files import file_digest, known_digest, write_json
from sinkprune.models.gpt2 import all_turned
from sinkprune.models.reader import Checkpoint, is_encoder
from sinkprune.models.weight_files import INDEX
from sinkprune_core.blocks import Rows, block_inputs, run_block
from sinkprune_core.language_model import LanguageModel, check_finite, part_name
from sinkprune_core.model_checks import blocks_of

LAST_NORMS = ("ln_f", "norm", "final_layernorm")  # what models call it
OF_BLOCK = "model-block-"  # how the names of shards begin that hold a block of a streamed model
METADATA = {"format": "pt"}  # what transformers expects in a file of safetensors


@dataclass(frozen=True)
class FinishedBlock:
    """A pruned block in a file of safetensors, as a saved model has it, with what the file must hold."""

    file: Path
    sha256: str

    def tensors(self) -> dict[str, torch.Tensor]:
        """Read the block; raises ValueError for a file that is gone or damaged."""
        self._check(self.file)
        return load_file(self.file)

    def take_over(self, target: Path) -> None:
        """Make `target` this file, a hard link where the disk allows it; raises as `tensors` does."""
        self._check(self.file)
        try:
            os.link(self.file, target)
        except OSError:  # another disk
            shutil.copyfile(self.file, target)
            self._check(target)

    def is_whole(self, file: Path) -> bool:
        """Return whether a file holds the block."""
        return file.is_file() and file_digest(file) == self.sha256

    def _check(self, file: Path) -> None:
        if not self.is_whole(file):
            raise ValueError(
                f"{file} is gone or damaged, and a block is not saved without its weights: "
                "prune again with the same work folder, which computes what is missing"
            )


@dataclass(frozen=True, eq=False)
class StreamedModel(LanguageModel):
    """A LanguageModel with embeddings and norms in memory.

    A block is in memory while `resident` yields it, the output head once it is asked for.
    """

    checkpoint: Checkpoint = field(kw_only=True)  # where the blocks lie
    finished: dict[int, FinishedBlock] = field(default_factory=dict)  # blocks that are pruned, by layer

    @property
    def is_streamed(self) -> bool:
        """Whether blocks come from disk one at a time."""
        return True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put the list of finished blocks back at the end: blocks on disk do not change."""
        finished = dict(self.finished)
        try:
            yield
        finally:
            self.finished.clear()
            self.finished.update(finished)

    def value_of(self, name: str, parameter: nn.Parameter) -> torch.Tensor:
        """Return the numbers of a parameter; those of a head that is not in memory yet are read."""
        if parameter.is_meta:
            return self.checkpoint.tensor(name).to(self.dtype)
        return parameter.detach()

    @contextmanager
    def without_blocks_in(self, folder: Path) -> Iterator[None]:
        """Let blocks that are finished in a folder be dense ones again, while a run starts anew or goes on.

        At the end those come back that nothing has taken the place of.
        """
        aside = {layer: block for layer, block in self.finished.items() if folder in block.file.parents}
        for layer in aside:
            del self.finished[layer]

        try:
            yield
        finally:
            for layer, block in aside.items():
                self.finished.setdefault(layer, block)

    def prefix(self, layer: int) -> str:
        """Return what the names of a block's parameters begin with."""
        return f"{self.blocks_name}.{layer}."

    @contextmanager
    def resident(self, layer: int) -> Iterator[nn.Module]:
        """Read a block, yield it, and forget it again, whatever happens meanwhile."""
        block = self.blocks[layer]
        try:
            self._fill(layer, block)
            yield block
        finally:
            assign(block, {name: value.detach().to("meta") for name, value in block.named_parameters()})

    def _fill(self, layer: int, block: nn.Module) -> None:
        """Read the parameters of a block, pruned or as they were; ValueError for one that is not finite."""
        if layer in self.finished:
            assign_stored(self, layer, self.finished[layer].tensors(), self.device)
            return

        prefix = self.prefix(layer)
        self.checkpoint.fill(block, prefix.removesuffix("."), self.dtype, self.device)
        self.checkpoint.files.close()  # or every page ever read would count as this process's memory
        check_finite(self, ((prefix + name, value) for name, value in block.named_parameters()))

    def _last_hidden(self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None) -> torch.Tensor:
        """Return the last hidden states, (B, T, D), reading every block once. Slow: give it large batches."""
        if attention_mask_BT is not None:
            raise ValueError(
                "a streamed model takes rows of one length without padding: give no attention mask"
            )

        states = block_inputs(self, Rows(ids_BT, None), len(ids_BT))
        for layer in range(len(self.blocks)):
            with self.resident(layer) as block:
                states = run_block(block, states)

        return self._last_norm(states[0].hidden_BTD)

    @property
    def _last_norm(self) -> nn.Module:
        """The norm after the last block, as its model calls it."""
        base = dict(self.model.base_model.named_children())
        return next(base[name] for name in LAST_NORMS if name in base)

    def next_logits(self, fresh_BT: torch.Tensor, cache: Cache, **padding: torch.Tensor) -> torch.Tensor:
        """Raise ValueError: every token would read the whole model."""
        raise ValueError(f"{self.name} is streamed from disk and cannot write token by token: use `load`")

    def raw_logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Return the logits of last hidden states, (N, V); the head stays in memory from then on."""
        head = self.output_head
        if head.weight.is_meta:
            self.checkpoint.fill(head, part_name(self.model, head), self.dtype, self.device)
        return super().raw_logits(hidden_ND)

    def fingerprint(self) -> str:
        """Return a SHA-256 prefix over the dtype, every byte of the weight files and the pruned blocks.

        Files are read whole once; their digests are kept in the cache (`files.known_digest`).
        """
        digest = hashlib.sha256(str(self.dtype).encode())
        for name in sorted(set(self.checkpoint.files.file_of.values())):
            digest.update(f"{name} {known_digest(self.checkpoint.files.folder / name)}".encode())

        for layer, block in sorted(self.finished.items()):
            digest.update(f"{layer} {block.sha256}".encode())
        return digest.hexdigest()[:16]

    def write_weights(self, folder: Path) -> None:
        """Write the model as sharded safetensors, one shard per block, with its configuration.

        Finished blocks are taken over as they are (a hard link where the disk allows it). Raises ValueError
        for a damaged one.
        """
        folder.mkdir()
        shard_of = self._save_blocks(folder) | self._save_rest(folder)
        size = sum((folder / shard).stat().st_size for shard in set(shard_of.values()))
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": shard_of})
        self.write_configuration(folder)
        self.checkpoint.files.check_unchanged()

    def write_configuration(self, folder: Path) -> None:
        """Write what transformers reads beside the weights."""
        self.model.config.dtype = self.dtype
        self.model.config.save_pretrained(folder)
        cast(GenerationConfig, self.model.generation_config).save_pretrained(folder)

    def _save_blocks(self, folder: Path) -> dict[str, str]:
        """Write a shard for every block; return the shard of every parameter."""
        shard_of = {}
        for layer, block in enumerate(self.blocks):
            shard = f"{OF_BLOCK}{layer:05d}.safetensors"
            shard_of |= {self.prefix(layer) + name: shard for name, _ in block.named_parameters()}
            if layer in self.finished:
                self.finished[layer].take_over(folder / shard)
                continue

            with self.resident(layer):
                save_file(stored_block(self, layer), folder / shard, metadata=METADATA)

        return shard_of

    def _save_rest(self, folder: Path) -> dict[str, str]:
        """Write a shard for every parameter outside the blocks; return the shard of every one."""
        in_blocks = tuple(self.prefix(layer) for layer in range(len(self.blocks)))
        rest = [name for name in self.checkpoint.names() if not name.startswith(in_blocks)]

        shard_of = {}
        for number, name in enumerate(rest):
            shard = f"model-rest-{number:05d}.safetensors"
            tensor = self.checkpoint.tensor(name).to(self.dtype).contiguous()
            save_file({name: tensor}, folder / shard, metadata=METADATA)
            del tensor  # or its file would stay in memory beside the next one
            self.checkpoint.files.close()
            shard_of[name] = shard

        return shard_of


def assign(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Give a module new parameters, by their names in it."""
    for name, value in values.items():
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, nn.Parameter(value, requires_grad=False))


def stored_block(lm: LanguageModel, layer: int) -> dict[str, torch.Tensor]:
    """Return the parameters of a block as files hold them, by their native names."""
    prefix = f"{lm.blocks_name}.{layer}."
    named = {prefix + name: value.detach() for name, value in lm.blocks[layer].named_parameters()}
    return all_turned(lm.model.config, named)


def assign_stored(
    lm: LanguageModel, layer: int, stored: Mapping[str, torch.Tensor], device: torch.device
) -> None:
    """Give a block the numbers that `stored_block` returned.

    Parameters that are in memory stay, as whoever holds them knows them. What is not in memory becomes a new
    one on `device`, and so does a compensating bias that the block did not have.
    """
    prefix = f"{lm.blocks_name}.{layer}."
    named = all_turned(lm.model.config, stored)
    values = {name.removeprefix(prefix): value for name, value in named.items()}
    in_memory = {
        name: parameter for name, parameter in lm.blocks[layer].named_parameters() if not parameter.is_meta
    }

    with torch.no_grad():
        for name in in_memory.keys() & values.keys():
            in_memory[name].copy_(values.pop(name))

    assign(lm.blocks[layer], {name: value.to(device) for name, value in values.items()})


def stream(
    checkpoint: Checkpoint, name: str, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> StreamedModel:
    """Return a model of `checkpoint` with nothing but embeddings and norms in memory.

    Raises what `load` raises: FormatError for weights that do not fit, ValueError for small parameters (norms
    and biases, of blocks too) that are not finite; larger ones are checked when they are read.
    """
    if is_encoder(checkpoint.config.architectures):
        raise ValueError(f"{name} is an encoder, which is not streamed: load it whole, without --stream")

    model = checkpoint.skeleton()
    checkpoint.check_fits(model)
    tokenizer = checkpoint.tokenizer()

    for child, module in model.base_model.named_children():
        has_parameters = any(True for _ in module.parameters())
        if has_parameters and module is not blocks_of(model):
            checkpoint.fill(module, f"{model.base_model_prefix}.{child}", dtype, device)

    checkpoint.files.close()
    if model.config.tie_word_embeddings:
        embedding = cast(nn.Embedding, model.get_input_embeddings())
        cast(nn.Linear, model.get_output_embeddings()).weight = embedding.weight

    lm = StreamedModel(
        model.requires_grad_(False),
        tokenizer,
        name,
        checkpoint.kind,
        checkpoint.mask_token_id(tokenizer),
        checkpoint.logits_shifted,
        checkpoint=checkpoint,
    )
    check_finite(lm, _small_parameters(checkpoint, dtype))
    checkpoint.files.close()

    return lm


def _small_parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the norms and biases of a checkpoint by their names."""
    for name in checkpoint.names():
        if len(checkpoint.shape(name)) == 1:
            yield name, nn.Parameter(checkpoint.tensor(name).to(dtype), requires_grad=False)
