"""Two calls at once on one model: each waits for its turn, and gives what it gives alone."""

import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations_with_replacement, count
from pathlib import Path

import torch
from conftest import tiny_lm
from hostile.fuzz import Case

from sinkprune.evaluation.likelihood import score
from sinkprune.models.loading import load
from sinkprune.models.saving import save
from sinkprune_core.blocks import weights_kept
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.language_model import KINDS, LanguageModel
from sinkprune_core.pruning.engine import dense_statistics, prune
from sinkprune_core.pruning.recipe import preset
from sinkprune_core.sinks.attention import attention_mass, hide
from sinkprune_core.sinks.trace import trace

IDS_NT = torch.randint(21, 66, (3, 12), generator=torch.Generator().manual_seed(0))
SAMPLER = Sampler(length=6, steps=3, block=6)
TURNS = 3  # times that each of two threads makes its call
NAMED = ()  # of nothing that is refused: calls wait

Job = Callable[[LanguageModel], object]


def _scored(lm: LanguageModel) -> object:
    return score(lm, IDS_NT, draws=2).value.tolist()


def _traced(lm: LanguageModel) -> object:
    return trace(lm, IDS_NT[:2, :4], SAMPLER, progress=False).layers_BSLK.tolist()


def _written(lm: LanguageModel) -> object:
    if lm.is_diffusion:
        return generate(lm, IDS_NT[:2, :4], SAMPLER, seed=1).tolist()
    return decode(lm, IDS_NT[:2, :4], 6, 0.7, seed=1).tolist()


def _pruned_for_a_while(lm: LanguageModel, name: str) -> object:
    with weights_kept(lm):
        report = prune(lm, preset(name), Calibration(IDS_NT, batch=2), progress=False)
        return report.linears.zeros.tolist(), _scored(lm)


def _statistics(lm: LanguageModel) -> object:
    recipe = preset("wanda", propagation="dense")
    found = dense_statistics(lm, [recipe], Calibration(IDS_NT, batch=2), progress=False)
    layers = found[recipe.statistics_key].layers
    return [{name: of.norm_I.tolist() for name, of in layer.items()} for layer in layers]


def _hidden(lm: LanguageModel) -> object:
    keys_BK = torch.zeros(3, 12, dtype=torch.bool)
    keys_BK[:, 1] = True
    with hide(lm.model, keys_BK), torch.no_grad():
        return lm.hidden(IDS_NT).sum(-1).tolist()


def _mass(lm: LanguageModel) -> object:
    return attention_mass(lm.model, IDS_NT).tolist()


def _fingerprint(lm: LanguageModel) -> object:
    return lm.fingerprint()


_numbers = count()


def _saved(lm: LanguageModel, place: Path) -> object:
    folder = place / f"saved-{next(_numbers)}"
    try:
        return load(save(lm, folder)).fingerprint()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def jobs(place: Path) -> dict[str, Job]:
    """Return what threads do with a model, by name; each returns what can be compared."""
    return {
        "scores": _scored,
        "traces": _traced,
        "writes": _written,
        "prunes and undoes": partial(_pruned_for_a_while, name="wanda"),
        "updates and undoes": partial(_pruned_for_a_while, name="sparsegpt"),
        "takes statistics": _statistics,
        "hides": _hidden,
        "sums attention": _mass,
        "takes its digest": _fingerprint,
        "saves": partial(_saved, place=place),
    }


def threads(root: Path) -> Iterator[Case]:
    """Every two calls, of both kinds of models."""
    for kind in KINDS:
        every = jobs(root)
        lm = tiny_lm(kind)
        alone = {name: job(lm) for name, job in every.items()}
        for one, other in combinations_with_replacement(every, 2):
            run = partial(_together, lm, every[one], every[other])
            right = [[alone[one]] * TURNS, [alone[other]] * TURNS]
            yield Case(f"{kind}: one {one}, one {other}", run, right, NAMED)


def _together(lm: LanguageModel, *both: Job) -> list[list[object]]:
    """Return what two threads find that begin at once; raise the first error of either."""
    found: list[list[object]] = [[] for _ in both]
    errors: list[Exception] = []
    begin = threading.Barrier(len(both))

    def run(index: int, job: Job) -> None:
        try:
            begin.wait()
            for _ in range(TURNS):
                found[index].append(job(lm))
        except Exception as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(index, job), daemon=True) for index, job in enumerate(both)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return found


GROUPS = {
    "two threads on one model": threads,
}  # by the name that the table has
