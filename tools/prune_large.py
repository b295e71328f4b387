"""Prune a random checkpoint in LLaDA-8B's public format and size on a small machine, and say what it took.

Not a test: it writes 16 GB twice, takes a part of an hour on two cores and is run by hand. What it
measures goes into docs/performance.json, from which `python -m sinkprune_companion.pages` writes
docs/performance.md:

    python tools/prune_large.py FOLDER [--blocks 32]

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
from torch.nn.functional import linear
from transformers import PreTrainedTokenizerFast

from sinkprune_companion.pages.sources import LARGE, note_performance, performance
from sinkprune_companion.run.records import environment

SEQUENCES, LENGTH, LEVELS = 8, 256, 4
WIDTH, MLP, HEADS = 4096, 12288, 32
VOCABULARY, MASK, END = 126464, 126336, 126081
CONFIG = {
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "d_model": WIDTH,
    "n_layers": 32,
    "n_heads": HEADS,
    "n_kv_heads": HEADS,
    "mlp_hidden_size": MLP,
    "mlp_ratio": 4,
    "vocab_size": VOCABULARY,
    "embedding_size": VOCABULARY,
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
    "mask_token_id": MASK,
    "eos_token_id": END,
    "pad_token_id": END,
    "torch_dtype": "bfloat16",
    **dict.fromkeys(("include_bias", "include_qkv_bias", "bias_for_layer_norm"), False),
    **dict.fromkeys(("alibi", "scale_logits", "input_emb_norm", "attention_layer_norm"), False),
    **dict.fromkeys(("attention_dropout", "residual_dropout", "embedding_dropout"), 0.0),
}


def write_checkpoint(folder: Path, blocks: int) -> None:
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

    shapes = dict.fromkeys(("q_proj", "k_proj", "v_proj", "attn_out"), (WIDTH, WIDTH))
    shapes |= dict.fromkeys(("ff_proj", "up_proj"), (MLP, WIDTH))
    shapes |= {"ff_out": (WIDTH, MLP), "attn_norm": (WIDTH,), "ff_norm": (WIDTH,)}
    for layer in range(blocks):
        prefix = f"model.transformer.blocks.{layer}"
        named = {f"{prefix}.{name}.weight": shape for name, shape in shapes.items()}
        write_shard(f"model-{layer:05d}.safetensors", named)
    embedding = {
        "model.transformer.wte.weight": (VOCABULARY, WIDTH),
        "model.transformer.ln_f.weight": (WIDTH,),
    }
    write_shard("model-embedding.safetensors", embedding)
    write_shard("model-head.safetensors", {"model.transformer.ff_out.weight": (VOCABULARY, WIDTH)})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "n_layers": blocks}))
    words = {f"word{index}": index for index in range(VOCABULARY)}
    del words[f"word{MASK}"], words[f"word{END}"]
    words |= {"<|mdm_mask|>": MASK, "<|endoftext|>": END}
    inner = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>").save_pretrained(folder)


def processor() -> str:
    """Return the kind of processor, by the units that decide the time."""
    return "AMX" if torch.cpu._is_amx_tile_supported() else torch.backends.cpu.get_cpu_capability()


def products_seconds(blocks: int) -> float:
    """Return what the matrix products of the one pass take alone."""
    half_NI = torch.randn(SEQUENCES * LENGTH * LEVELS // 2, WIDTH).bfloat16()
    weight_OI = torch.randn(MLP, WIDTH).bfloat16()
    times = []
    for _ in range(4):
        begun = time.perf_counter()
        linear(half_NI, weight_OI)
        times.append(time.perf_counter() - begun)
    of_half = (4 * WIDTH + 3 * MLP) / MLP * min(times)  # attention has four maps, the MLP three
    return blocks * 2 * of_half


def main() -> None:
    """Write the checkpoint, prune it, and note what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--preset", default="paper")
    options = parser.parse_args()
    source = options.folder / "random-llada-8b"
    text = options.folder / "text.txt"
    if not source.exists():
        write_checkpoint(source, options.blocks)
    rng = torch.Generator().manual_seed(1)
    documents = []
    for _ in range(SEQUENCES):
        words = torch.randint(100_000, (600,), generator=rng).tolist()
        documents.append(" ".join(f"word{word}" for word in words))
    text.write_text("\n\n".join(documents))
    command = [sys.executable, "-m", "sinkprune.cli.main", "prune", str(source)]
    command += ["--preset", options.preset, "--set", f"noise_levels={LEVELS}"]
    command += ["--stream", "--dtype", "bfloat16", "--text", str(text)]
    command += [
        "--sequences",
        str(SEQUENCES),
        "--length",
        str(LENGTH),
        "--out",
        str(options.folder / "pruned"),
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True)
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
        "products_seconds": products_seconds(options.blocks),
        "cores_busy": (usage.ru_utime + usage.ru_stime) / seconds,
        "read_bytes": 512 * usage.ru_inblock,
        "written_bytes": 512 * usage.ru_oublock,
        "peak_bytes": 1024 * usage.ru_maxrss,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "memory_bytes": psutil.virtual_memory().total,
        **environment(),
    }
    note_performance(LARGE, performance().get(LARGE, {}) | {record["processor"]: record})
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
