"""A model whose blocks come from disk one at a time: what does not fit into memory can still be pruned, traced and scored.

Dimensions: B batch, T sequence position, D hidden width, N selected positions.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sinkprune_core.files import atomic, write_json
from sinkprune_core.models.blocks import Rows, block_inputs, run_block
from sinkprune_core.models.language_model import LanguageModel, blocks_of
from sinkprune_core.models.reader import CARD, Checkpoint, part_name

SAMPLE = 64  # numbers at the beginning of every tensor that go into a fingerprint


@dataclass(frozen=True)
class StreamedModel(LanguageModel):
    """A LanguageModel whose blocks lie in `checkpoint`, or, once they are pruned, in the files of `finished` by layer.

    Embeddings and norms are in memory; a block is so while `resident` yields it, the output head once it is asked for.
    """

    checkpoint: Checkpoint = None
    finished: dict[int, Path] = field(default_factory=dict)

    is_streamed = True

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    @contextmanager
    def resident(self, layer: int) -> Iterator[nn.Module]:
        """Read a block, yield it, and forget it again, whatever happens meanwhile."""
        block, prefix = self.blocks[layer], f"{self.blocks_name}.{layer}"
        if layer in self.finished:
            _assign(
                block,
                {
                    name.removeprefix(f"{prefix}."): value.to(self.device)
                    for name, value in load_file(self.finished[layer]).items()
                },
            )
        else:
            self.checkpoint.fill(block, prefix, self.dtype, self.device)
            self.checkpoint.files.close()  # or every page ever read would count as this process's memory
        try:
            yield block
        finally:
            _assign(block, {name: value.detach().to("meta") for name, value in block.named_parameters()})

    def hidden(self, ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        """Return the last hidden states, (B, T, D), reading every block once. Slow: give it large batches."""
        if attention_mask_BT is not None:
            raise ValueError(
                "a streamed model takes rows of one length without padding: give no attention mask"
            )
        states = block_inputs(self, Rows(ids_BT, None), len(ids_BT))
        for layer in range(len(self.blocks)):
            with self.resident(layer) as block:
                states = run_block(block, states)
        base = self.model.base_model
        return (base.ln_f if hasattr(base, "ln_f") else base.norm)(states[0].hidden_BTD)

    def head(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        head = self.model.get_output_embeddings()
        if head.weight.is_meta:
            self.checkpoint.fill(head, part_name(self.model, head), self.dtype, self.device)
        return super().head(hidden_ND)

    def fingerprint(self) -> str:
        """Return a SHA-256 prefix over names, shapes, dtypes and the first numbers of every stored tensor; nothing is read whole."""
        digest = hashlib.sha256()
        for name in sorted(self.checkpoint.names()):
            digest.update(f"{name} {self.checkpoint.dtype(name)} {self.checkpoint.shape(name)}".encode())
            digest.update(
                self.checkpoint.tensor(name)
                .flatten()[:SAMPLE]
                .contiguous()
                .view(torch.uint8)
                .numpy()
                .tobytes()
            )
        self.checkpoint.files.close()
        return digest.hexdigest()[:16]

    def save(self, folder: Path | str, **card: object) -> Path:
        """Write the model as sharded safetensors, one shard per block, with tokenizer and card, atomically.

        Finished blocks are taken over as they are (a hard link where the disk allows it). Raises FileExistsError if
        `folder` exists.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"output folder {folder} exists: choose another name or remove it first")
        inside = tuple(f"{self.blocks_name}.{layer}." for layer in range(len(self.blocks)))
        rest = [name for name in self.checkpoint.names() if not name.startswith(inside)]
        where: dict[str, str] = {}
        with atomic(folder) as partial:
            partial.mkdir()
            for layer, prefix in enumerate(inside):
                shard = f"model-block-{layer:05d}.safetensors"
                _take_over(self, layer, prefix, partial / shard)
                where |= dict.fromkeys(
                    (prefix + name for name, _ in self.blocks[layer].named_parameters()), shard
                )
            for number, name in enumerate(rest):
                shard = f"model-rest-{number:05d}.safetensors"
                save_file(
                    {name: self.checkpoint.tensor(name).to(self.dtype).clone()},
                    partial / shard,
                    metadata={"format": "pt"},
                )
                self.checkpoint.files.close()
                where[name] = shard
            size = sum((partial / shard).stat().st_size for shard in set(where.values()))
            write_json(
                partial / "model.safetensors.index.json",
                {"metadata": {"total_size": size}, "weight_map": where},
            )
            self.model.config.dtype = self.dtype
            self.model.config.save_pretrained(partial)
            self.tokenizer.save_pretrained(partial)
            write_json(
                partial / CARD,
                {
                    "name": self.name,
                    "kind": self.kind,
                    "mask_token_id": self.mask_token_id,
                    "logits_shifted": self.logits_shifted,
                    **card,
                },
            )
        return folder


def _take_over(lm: StreamedModel, layer: int, prefix: str, target: Path) -> None:
    if layer in lm.finished:
        try:
            os.link(lm.finished[layer], target)
        except OSError:  # another disk
            shutil.copyfile(lm.finished[layer], target)
        return
    with lm.resident(layer) as block:
        save_file(
            {prefix + name: value.detach().contiguous() for name, value in block.named_parameters()},
            target,
            metadata={"format": "pt"},
        )


def _assign(module: nn.Module, values: dict[str, torch.Tensor]) -> None:
    for name, value in values.items():
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, nn.Parameter(value, requires_grad=False))


def stream(
    checkpoint: Checkpoint, name: str, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> StreamedModel:
    """Return a model of `checkpoint` with nothing but embeddings and norms in memory."""
    model, tokenizer = checkpoint.skeleton(), checkpoint.tokenizer()
    for child, module in model.base_model.named_children():
        if module is not blocks_of(model) and any(True for _ in module.parameters()):
            checkpoint.fill(module, f"{model.base_model_prefix}.{child}", dtype, device)
    checkpoint.files.close()
    if model.config.tie_word_embeddings:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    return StreamedModel(
        model.requires_grad_(False),
        tokenizer,
        name,
        checkpoint.kind,
        checkpoint.mask_token_id(tokenizer),
        checkpoint.logits_shifted,
        checkpoint,
    )
