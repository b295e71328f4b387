"""Keep an exported adapter in 8 bits, and measure what that does to its NELBO.

Run it as `python tools/eight_bits.py runs/evidence/models/seed-1-diffusion`. It writes the adapter, its
settings and its log to figures/trainings/<name of the folder>, and beside them eight_bits.json: the change in
nats per token, from which `python -m sinkprune_companion.pages` puts the number into docs/trainings.md.

Values are float8 (e4m3, three bits of mantissa) times a power of two for each factor of LoRA, which
`lora_alpha` takes back: what is loaded is exactly what was rounded.
"""

import argparse
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sinkprune.evaluation.intervals import interval
from sinkprune.evaluation.text_scores import score_texts
from sinkprune.files import atomic, write_json
from sinkprune.models.adapters import CONFIG, WEIGHTS
from sinkprune.models.weight_files import read_json
from sinkprune_companion import project_root
from sinkprune_companion.experiments.diffusion_models import diffusion_model
from sinkprune_companion.run.texts import held_out_texts
from sinkprune_companion.training.settings import EXPORTED_LOG, SETTINGS

DTYPE = torch.float8_e4m3fn
FACTORS = ("lora_A", "lora_B")


def write_eight_bits(adapter: Path, folder: Path) -> None:
    """Write an adapter in 8 bits, its settings and log; raise FileExistsError where `folder` exists."""
    if folder.exists():
        raise FileExistsError(f"{folder} exists: remove it first, and what was measured on it does not fit")

    tensors = load_file(adapter / WEIGHTS)
    config = read_json(adapter / CONFIG)

    for factor in FACTORS:
        names = [name for name in tensors if factor in name]
        largest = max(float(tensors[name].abs().max()) for name in names)
        power = math.floor(math.log2(torch.finfo(DTYPE).max / largest))
        config["lora_alpha"] /= 2**power

        for name in names:
            tensors[name] = (tensors[name].float() * 2**power).to(DTYPE)

    with atomic(folder) as partial:
        partial.mkdir(parents=True)
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        write_json(partial / CONFIG, config)
        for name in (SETTINGS, EXPORTED_LOG):
            shutil.copyfile(adapter / name, partial / name)


def nats(adapter: Path, sequences: int, length: int, draws: int) -> torch.Tensor:
    """Return nats per token of every held-out sequence, (sequences,)."""
    lm = diffusion_model(adapter, "float32")
    texts = held_out_texts(lm.tokenizer, sequences, length)
    return torch.tensor(score_texts(lm, texts, draws).value.to_numpy())


def main() -> None:
    """Write every adapter that is named, and what 8 bits do to it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    parser.add_argument("adapters", nargs="+", type=Path, help="folders of `sinkprune train --export`")
    parser.add_argument("--sequences", type=int, default=48)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--draws", type=int, default=4)

    options = parser.parse_args()
    measured = {"sequences": options.sequences, "length": options.length, "draws": options.draws}

    for adapter in options.adapters:
        folder = project_root() / "figures" / "trainings" / adapter.name
        write_eight_bits(adapter, folder)

        change = interval(nats(folder, **measured) - nats(adapter, **measured))
        found = {"change": change.value, "low": change.low, "high": change.high}
        write_json(folder / "eight_bits.json", found | measured)
        print(f"{folder.name}: {change.value:+.5f} [{change.low:+.5f}, {change.high:+.5f}] nats per token")


if __name__ == "__main__":
    main()
