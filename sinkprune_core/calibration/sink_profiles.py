"""How much attention calibration tokens receive at every step of their trajectory: it decides their weights.

A step of a diffusion model is a forward of its own, on one state of the text. A causal model has one forward
per sequence, and its steps are windows of queries.

Dimensions: N clean sequences, S steps, R = N * S rows of a diffusion model or N of a causal one, B rows of a
batch, T position, Q queries (the positions of a row), D hidden width.
"""

import torch

from sinkprune_core.blocks import Rows, run_block, visit
from sinkprune_core.calibration.text import Calibration, trajectory
from sinkprune_core.calibration.waiting_store import IN_MEMORY, PassState, Store, inputs_before
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.sinks import attention
from sinkprune_core.sinks.trace import query_windows, visible


def windows_of(lm: LanguageModel, length: int, noise_levels: int) -> attention.Windows | None:
    """Return the query windows that are a causal model's steps; None for a diffusion model.

    They cut the queries after the first of `noise_levels` + 1 equal parts. Raises ValueError for too many.
    """
    if lm.is_diffusion:
        return None
    if noise_levels > length:
        raise ValueError(
            f"noise_levels={noise_levels} exceed the {length} tokens of a calibration sequence: "
            "a causal step is at least one query; use fewer levels"
        )

    return query_windows(length // (noise_levels + 1), length, noise_levels)


def tracked_rows(lm: LanguageModel, calibration: Calibration, noise_levels: int, noise: str) -> torch.Tensor:
    """Return the rows whose forwards show the sinks, int64 (R, T)."""
    if not lm.is_diffusion:
        return calibration.ids_NT
    return trajectory(lm, calibration, noise_levels, noise).flatten(0, 1)


def empty_mass(ids_RT: torch.Tensor, windows: attention.Windows | None) -> torch.Tensor:
    """Return zeros for the attention mass of the keys of rows, float32 (R, S, T), one S per window."""
    rows, length = ids_RT.shape
    return torch.zeros(rows, 1 if windows is None else len(windows), length)


def profile(
    mass_RST: torch.Tensor, windows: attention.Windows | None, rows_of_sequence: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention mass in even shares, (N, S, T), and which keys every query of a step can see, (S, T).

    `mass_RST` is averaged over layers and heads. Several rows of a diffusion model make the steps of a
    sequence, where an even share is 1; a row of a causal model has all steps in it.
    """
    length = mass_RST.shape[-1]
    if windows is None:
        visible_ST = torch.ones(rows_of_sequence, length, dtype=torch.bool)
        return mass_RST.view(-1, rows_of_sequence, length), visible_ST

    even_ST = attention.even_share(length, windows, causal=True)
    return mass_RST / even_ST.masked_fill(even_ST == 0, torch.inf), visible(length, windows)


@torch.no_grad()
def sink_profiles(
    lm: LanguageModel,
    calibration: Calibration,
    noise_levels: int,
    noise: str = "grid",
    progress: bool = True,
    store: Store = IN_MEMORY,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attention mass of every calibration token at every step, and which keys are visible.

    Mass is float32 (N, S, T) in even shares, averaged over layers and heads; visibility is bool (S, T).
    Padding gives and receives nothing. Blocks are visited one by one with all rows, so that a model whose
    blocks come from disk is read once. Hidden states wait in `store`. Raises ValueError where the mass is not
    finite.
    """
    ids_RT = tracked_rows(lm, calibration, noise_levels, noise)
    windows = windows_of(lm, ids_RT.shape[1], noise_levels)
    rows = Rows(ids_RT, None, calibration.present_in(len(ids_RT)))
    total_RST = empty_mass(ids_RT, windows)

    hidden = store.hidden(lm, rows)
    state = PassState(("sinks", noise_levels, noise), {"mass": total_RST}, hidden=hidden)
    layers = store.steps(range(len(lm.blocks)), state)

    with attention.track(lm.model, windows) as tracker:
        # masks are those of the attention that is tracked, whatever attention the model was loaded with
        inputs = inputs_before(lm, rows, calibration.batch, hidden, layers.start)

        for layer, block in visit(lm, progress, "sinks of the calibration text", layers):
            start = 0
            next_RTD = hidden(layer + 1)
            for place, batch in enumerate(inputs):
                stop = start + len(batch.hidden_BTD)
                if rows.present_RT is not None:
                    tracker.counted_BQ = rows.present_RT[start:stop]
                next_BTD = None if next_RTD is None else next_RTD[start:stop]
                (inputs[place],) = run_block(block, [batch], store_RTD=next_BTD)

                mass_BST = tracker.take().mean((1, 2)).cpu()
                total_RST[start:stop] += mass_BST / len(lm.blocks)
                start = stop

    lm.check_output(total_RST)
    return profile(total_RST, windows, noise_levels)
