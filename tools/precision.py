"""How far each dtype is from float32 on the embedded pair: logits, first choices and likelihood.

Run it as `python tools/precision.py`. It writes docs/precision.csv, from which
`python -m sinkprune_companion.pages` puts the numbers into docs/models.md.

Dimensions: N positions, V vocabulary.
"""

import argparse

import pandas as pd
import torch
from tqdm.auto import tqdm

from sinkprune import corpus
from sinkprune.evaluation.intervals import interval
from sinkprune.evaluation.likelihood import score
from sinkprune.files import atomic
from sinkprune.models.catalog import EMBEDDED
from sinkprune.models.loading import load
from sinkprune.models.weight_files import DTYPES
from sinkprune_companion import project_root
from sinkprune_core.diffusion.noise import corrupt
from sinkprune_core.seeds import generator

SHARE = 0.5  # of positions that a diffusion model sees masked


@torch.inference_mode()
def outputs(name: str, dtype: str, ids_NT: torch.Tensor, draws: int) -> tuple[torch.Tensor, pd.Series]:
    """Return the logits at half of all positions, float32 (N, V), and the nats per token by sequence."""
    lm = load(name, dtype)
    where_NT = torch.rand(ids_NT.shape, generator=generator(0, "precision")) < SHARE
    where_NT[:, 0] = False
    input_NT = corrupt(ids_NT, where_NT, lm.mask_token_id) if lm.is_diffusion else ids_NT
    logits = []
    for input_T, where_T in zip(input_NT, where_NT, strict=True):
        logits.append(lm.logits_at(input_T[None], where_T[None]))
    nats = score(lm, ids_NT, draws=draws).groupby("sequence").value.mean()
    return torch.cat(logits), nats


def main() -> None:
    """Measure every dtype, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()

    ids_NT = corpus.shipped_samples(options.length, held_out=True)[: options.sequences]
    rows = []

    for name in EMBEDDED:
        exact_NV, exact = outputs(name, "float32", ids_NT, options.draws)
        for dtype in tqdm([dtype for dtype in DTYPES if dtype != "float32"], desc=name):
            rounded_NV, rounded = outputs(name, dtype, ids_NT, options.draws)
            kl = torch.nn.functional.kl_div(
                rounded_NV.log_softmax(-1), exact_NV.log_softmax(-1), log_target=True, reduction="batchmean"
            )

            shift = interval(rounded - exact)

            rows.append(
                {
                    "model": name,
                    "dtype": dtype,
                    "logit_error": (rounded_NV - exact_NV).square().mean().sqrt().item(),
                    "agreement": (rounded_NV.argmax(-1) == exact_NV.argmax(-1)).float().mean().item(),
                    "kl": kl.item(),
                    "shift": shift.value,
                    "low": shift.low,
                    "high": shift.high,
                    "positions": len(exact_NV),
                    "sequences": options.sequences,
                    "length": options.length,
                }
            )

    frame = pd.DataFrame(rows)
    with atomic(project_root() / "docs" / "precision.csv") as partial:
        frame.to_csv(partial, index=False, float_format="%.6g")

    print(frame.to_string())


if __name__ == "__main__":
    main()
