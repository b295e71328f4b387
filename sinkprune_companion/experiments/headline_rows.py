"""The headline rows of notebook 03 on one model: those that its verdicts at 50 and 75 % are read from.

Other trainings and other amounts of calibration text are measured so, without all that the notebook adds.
"""

from collections.abc import Collection, Iterable, Mapping

import pandas as pd
import yaml

from sinkprune_companion.experiments.pruning_grid import (
    HEADLINE,
    SPARSITY,
    GridCell,
    GridSize,
    Measures,
    grid_cells,
    measure_grid,
)
from sinkprune_companion.experiments.scoring import above_dense
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import held_out_texts
from sinkprune_core.files import project_root
from sinkprune_core.models.language_model import LanguageModel

NOTEBOOK = "03_pruning_results"
LENGTH = 128  # tokens per held-out sequence, as in the notebook


def sizes_of(profile: str) -> dict[str, dict]:
    """Return the parameters that a profile gives to notebooks, by notebook."""
    file = project_root() / "workflow" / "config" / f"{profile}.yml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))["notebooks"]


def headline_cells(size: Mapping[str, object], draws: int, left_out: Collection[str] = ()) -> list[GridCell]:
    """Return the headline variants at SPARSITY but for those `left_out`, each on so many calibration draws.

    `size` are parameters of the notebook.
    """
    grid = GridSize(size["calibration"], size["noise_levels"], draws, 0, 0, 0)
    cells = grid_cells(grid, [SPARSITY], [], [], [])
    return [cell for cell in cells if cell.name in HEADLINE and cell.name not in left_out]


def curve_cells(size: Mapping[str, object], draws: int) -> list[GridCell]:
    """Return the variants at sparsities other than SPARSITY, on as many of the draws as the notebook takes.

    `size` are parameters of the notebook.
    """
    grid = GridSize(size["calibration"], size["noise_levels"], 0, min(size["other_draws"], draws), 0, 0)
    others = [share for share in size["sparsities"] if share != SPARSITY]
    return grid_cells(grid, others, [], [], [])


def headline_scores(
    run: Run,
    lm: LanguageModel,
    size: Mapping[str, object],
    seeds: Iterable[int],
    left_out: Collection[str] = (),
    with_curve: bool = True,
) -> pd.DataFrame:
    """Return the scores of the dense model and of the headline variants, on calibration draws `seeds`.

    `size` are parameters of the notebook. Where it says `own_noise`, every draw is scored under noise of its
    own, and values are those above the dense model's under the same noise. Other sparsities are measured as
    well, unless `with_curve` is False. What is on record is read.
    """
    seeds = list(seeds)
    cells = headline_cells(size, max(seeds) + 1, left_out)
    if with_curve:
        cells += curve_cells(size, max(seeds) + 1)
    texts = held_out_texts(lm.tokenizer, size["sequences"], LENGTH)
    measures = Measures(texts, size["draws"], {}, 0, size["own_noise"])
    scores, _ = measure_grid(run, lm, cells, measures, seeds)
    return above_dense(scores) if size["own_noise"] else scores
