"""Prune a random checkpoint in LLaDA-8B's public format and size on a small machine, and say what it took.

Not a test: it writes 16 GB three times, takes a part of an hour on two cores and is run by hand. What it measures goes into
docs/performance.json, from which `python -m sinkprune_core.companion.pages` writes docs/performance.md:

    python tests/benchmarks/prune_large.py FOLDER [--blocks 32]

The weights are random, so nothing is said about a model's quality; time and memory do not care.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sinkprune_core.companion.pages import LARGE, note_performance
from sinkprune_core.companion.records import environment

SEQUENCES, LENGTH, LEVELS = 8, 256, 4
WIDTH, MLP, HEADS, VOCABULARY, MASK = 4096, 12288, 32, 126464, 126336
CONFIG = {
    "model_type": "llada", "architectures": ["LLaDAModelLM"], "d_model": WIDTH, "n_layers": 32, "n_heads": HEADS, "n_kv_heads": HEADS, "mlp_hidden_size": MLP, "mlp_ratio": 4,
    "vocab_size": VOCABULARY, "embedding_size": VOCABULARY, "max_sequence_length": 4096, "rms_norm_eps": 1e-5, "layer_norm_type": "rms", "rope": True, "rope_theta": 500000.0, "rope_full_precision": True,
    "weight_tying": False, "block_type": "llama", "block_group_size": 1, "activation_type": "silu", "include_bias": False, "include_qkv_bias": False, "bias_for_layer_norm": False, "layer_norm_with_affine": True,
    "alibi": False, "scale_logits": False, "input_emb_norm": False, "attention_layer_norm": False, "attention_dropout": 0.0, "residual_dropout": 0.0, "embedding_dropout": 0.0, "mask_token_id": MASK, "eos_token_id": 126081, "pad_token_id": 126081, "torch_dtype": "bfloat16",
}  # fmt: skip


def write_checkpoint(folder: Path, blocks: int) -> None:
    """Write random weights, one shard per block, with LLaDA's names; a tokenizer of as many words beside them."""
    folder.mkdir(parents=True)
    rng, where = torch.Generator().manual_seed(0), {}

    def shard(name: str, shapes: dict[str, tuple[int, ...]]) -> None:
        tensors = {
            key: torch.ones(shape, dtype=torch.bfloat16)
            if len(shape) == 1
            else torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=rng)
            for key, shape in shapes.items()
        }
        save_file(tensors, folder / name, metadata={"format": "pt"})
        where.update(dict.fromkeys(shapes, name))

    for layer in range(blocks):
        prefix = f"model.transformer.blocks.{layer}."
        square = {
            f"{prefix}{name}.weight": (WIDTH, WIDTH) for name in ("q_proj", "k_proj", "v_proj", "attn_out")
        }
        mlp = {
            f"{prefix}ff_proj.weight": (MLP, WIDTH),
            f"{prefix}up_proj.weight": (MLP, WIDTH),
            f"{prefix}ff_out.weight": (WIDTH, MLP),
        }
        shard(
            f"model-{layer:05d}.safetensors",
            {**square, **mlp, f"{prefix}attn_norm.weight": (WIDTH,), f"{prefix}ff_norm.weight": (WIDTH,)},
        )
    shard(
        "model-embedding.safetensors",
        {"model.transformer.wte.weight": (VOCABULARY, WIDTH), "model.transformer.ln_f.weight": (WIDTH,)},
    )
    shard("model-head.safetensors", {"model.transformer.ff_out.weight": (VOCABULARY, WIDTH)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "n_layers": blocks}))
    words = {f"word{index}": index for index in range(VOCABULARY)}
    del words[f"word{MASK}"], words["word126081"]
    words |= {"<|mdm_mask|>": MASK, "<|endoftext|>": 126081}
    inner = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>").save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--preset", default="paper")
    options = parser.parse_args()
    source, out, text = (
        options.folder / "random-llada-8b",
        options.folder / "pruned",
        options.folder / "text.txt",
    )
    if not source.exists():
        write_checkpoint(source, options.blocks)
    rng = torch.Generator().manual_seed(1)
    text.write_text(
        "\n\n".join(
            " ".join(f"word{word}" for word in torch.randint(100_000, (600,), generator=rng).tolist())
            for _ in range(SEQUENCES)
        )
    )
    command = [
        sys.executable,
        "-m",
        "sinkprune_core.cli.main",
        "prune",
        str(source),
        "--preset",
        options.preset,
        "--set",
        f"levels={LEVELS}",
        "--stream",
        "--dtype",
        "bfloat16",
        "--text",
        str(text),
        "--sequences",
        str(SEQUENCES),
        "--length",
        str(LENGTH),
        "--out",
        str(out),
    ]
    begun = time.perf_counter()
    subprocess.run(command, check=True)
    seconds, peak = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    record = {
        "bytes": sum(file.stat().st_size for file in source.glob("*.safetensors")),
        "blocks": options.blocks,
        "preset": options.preset,
        "sequences": SEQUENCES,
        "length": LENGTH,
        "levels": LEVELS,
        "seconds": seconds,
        "peak_bytes": peak,
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        **environment(),
    }
    note_performance(LARGE, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
