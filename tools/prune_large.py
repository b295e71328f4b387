"""Prune or diagnose a random checkpoint in LLaDA-8B's format and size on a small machine: what it takes.

Not a test: it writes 16 GB, twice where it prunes, takes a part of an hour on two cores and is run by hand.
What all blocks take goes into docs/performance.json, from which `python -m sinkprune_companion.pages` writes
docs/performance.md. What fewer blocks take, or a diagnosis that goes on with one that was killed, is printed
alone:

    python tools/prune_large.py FOLDER [--blocks 32] [--diagnose]

The weights are random, so nothing is said about a model's quality; time and memory do not care.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import linear
from transformers import PreTrainedTokenizerFast

from sinkprune_companion.pages.sources import LARGE, LARGE_DIAGNOSIS, note_performance, performance
from sinkprune_companion.run.records import environment

SEQUENCES, LENGTH, LEVELS = 8, 256, 4
WORDS = 100_000  # of which the text is made, where the vocabulary has as many
WORK = "diagnosis"  # the folder that a diagnosis works in
OTHER_TOKENS = 400  # at the end of a vocabulary, that are no words of a text


@dataclass(frozen=True)
class Size:
    """The size of a checkpoint in LLaDA's format; by default that of LLaDA-8B."""

    blocks: int = 32
    width: int = 4096
    mlp: int = 12288
    heads: int = 32
    vocabulary: int = 126464

    @property
    def mask(self) -> int:
        """The number of the mask token."""
        return self.vocabulary - 128

    @property
    def end(self) -> int:
        """The number of the token that ends a text."""
        return self.vocabulary - 383

    @property
    def config(self) -> dict:
        """What config.json says."""
        return {
            "model_type": "llada",
            "architectures": ["LLaDAModelLM"],
            "d_model": self.width,
            "n_layers": self.blocks,
            "n_heads": self.heads,
            "n_kv_heads": self.heads,
            "mlp_hidden_size": self.mlp,
            "mlp_ratio": 4,
            "vocab_size": self.vocabulary,
            "embedding_size": self.vocabulary,
            "max_sequence_length": 4096,
            "rms_norm_eps": 1e-5,
            "layer_norm_type": "rms",
            "layer_norm_with_affine": True,
            "rope": True,
            "rope_theta": 500000.0,
            "rope_full_precision": True,
            "weight_tying": False,
            "block_type": "llama",
            "block_group_size": 1,
            "activation_type": "silu",
            "mask_token_id": self.mask,
            "eos_token_id": self.end,
            "pad_token_id": self.end,
            "torch_dtype": "bfloat16",
            **dict.fromkeys(("include_bias", "include_qkv_bias", "bias_for_layer_norm"), False),
            **dict.fromkeys(("alibi", "scale_logits", "input_emb_norm", "attention_layer_norm"), False),
            **dict.fromkeys(("attention_dropout", "residual_dropout", "embedding_dropout"), 0.0),
        }


def write_checkpoint(folder: Path, size: Size) -> None:
    """Write random weights with LLaDA's names, one shard per block, and a tokenizer of as many words."""
    folder.mkdir(parents=True)
    rng = torch.Generator().manual_seed(0)
    weight_map = {}

    def write_shard(name: str, shapes: dict[str, tuple[int, ...]]) -> None:
        tensors = {}
        for key, shape in shapes.items():
            tensors[key] = torch.ones(shape, dtype=torch.bfloat16)
            if len(shape) > 1:  # no norm
                tensors[key].normal_(0, 0.02, generator=rng)
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shapes, name))

    shapes = _shapes_of_block(size)
    for layer in range(size.blocks):
        prefix = f"model.transformer.blocks.{layer}"
        named = {f"{prefix}.{name}.weight": shape for name, shape in shapes.items()}
        write_shard(f"model-{layer:05d}.safetensors", named)

    embedding = {
        "model.transformer.wte.weight": (size.vocabulary, size.width),
        "model.transformer.ln_f.weight": (size.width,),
    }
    write_shard("model-embedding.safetensors", embedding)
    head = {"model.transformer.ff_out.weight": (size.vocabulary, size.width)}
    write_shard("model-head.safetensors", head)

    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(size.config))
    _write_tokenizer(folder, size)


def _shapes_of_block(size: Size) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a block's weights by LLaDA's names."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("q_proj", "k_proj", "v_proj", "attn_out"):
        shapes[name] = (size.width, size.width)
    for name in ("ff_proj", "up_proj"):
        shapes[name] = (size.mlp, size.width)

    shapes["ff_out"] = (size.width, size.mlp)
    shapes["attn_norm"] = (size.width,)
    shapes["ff_norm"] = (size.width,)
    return shapes


def _write_tokenizer(folder: Path, size: Size) -> None:
    """Write a tokenizer that knows a word for every number."""
    words = {f"word{index}": index for index in range(size.vocabulary)}
    del words[f"word{size.mask}"], words[f"word{size.end}"]
    words |= {"<|mdm_mask|>": size.mask, "<|endoftext|>": size.end}

    inner = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>").save_pretrained(folder)


def write_text(file: Path, size: Size) -> None:
    """Write documents of random words, one per sequence."""
    rng = torch.Generator().manual_seed(1)
    known = min(WORDS, size.vocabulary - OTHER_TOKENS)

    documents = []
    for _ in range(SEQUENCES):
        words = torch.randint(known, (600,), generator=rng).tolist()
        documents.append(" ".join(f"word{word}" for word in words))
    file.write_text("\n\n".join(documents))


def processor() -> str:
    """Return the kind of processor, by the units that decide the time."""
    return "AMX" if torch.cpu._is_amx_tile_supported() else torch.backends.cpu.get_cpu_capability()


def products_seconds(size: Size) -> float:
    """Return what the matrix products of the one pass take alone."""
    half_NI = torch.randn(SEQUENCES * LENGTH * LEVELS // 2, size.width).bfloat16()
    weight_OI = torch.randn(size.mlp, size.width).bfloat16()

    times = []
    for _ in range(4):
        begun = time.perf_counter()
        linear(half_NI, weight_OI)
        times.append(time.perf_counter() - begun)

    of_half = (
        (4 * size.width + 3 * size.mlp) / size.mlp * min(times)
    )  # attention has four maps, the MLP three
    return size.blocks * 2 * of_half


def command_line(options: argparse.Namespace, source: Path, text: Path) -> list[str]:
    """Return the command that is measured."""
    command = [sys.executable, "-m", "sinkprune.cli.main"]
    if options.diagnose:
        command += ["diagnose", str(source), "--noise-levels", str(LEVELS)]
        command += ["--work", str(options.folder / WORK)]
    else:
        command += ["prune", str(source), "--preset", options.preset, "--set", f"noise_levels={LEVELS}"]
        command += ["--out", str(options.folder / "pruned")]

    command += ["--stream", "--dtype", "bfloat16", "--text", str(text)]
    return [*command, "--sequences", str(SEQUENCES), "--length", str(LENGTH)]


def main() -> None:
    """Write the checkpoint, prune or diagnose it, and note what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", type=int, default=Size.blocks)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--diagnose", action="store_true", help="what `sinkprune diagnose` takes")
    options = parser.parse_args()

    size = Size(blocks=options.blocks)
    source = options.folder / "random-llada-8b"
    text = options.folder / "text.txt"
    if not source.exists():
        write_checkpoint(source, size)
    write_text(text, size)

    goes_on = options.diagnose and (options.folder / WORK).exists()
    started = time.perf_counter()
    subprocess.run(command_line(options, source, text), check=True)
    seconds = time.perf_counter() - started

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = {
        "bytes": sum(file.stat().st_size for file in source.glob("*.safetensors")),
        "blocks": options.blocks,
        "preset": options.preset,
        "sequences": SEQUENCES,
        "length": LENGTH,
        "levels": LEVELS,
        "seconds": seconds,
        "products_seconds": products_seconds(size),
        "cores_busy": (usage.ru_utime + usage.ru_stime) / seconds,
        "read_bytes": 512 * usage.ru_inblock,
        "written_bytes": 512 * usage.ru_oublock,
        "peak_bytes": 1024 * usage.ru_maxrss,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "memory_bytes": psutil.virtual_memory().total,
        **environment(),
    }

    if options.blocks == Size.blocks and not goes_on:
        entry = LARGE_DIAGNOSIS if options.diagnose else LARGE
        note_performance(entry, performance().get(entry, {}) | {record["processor"]: record})
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
