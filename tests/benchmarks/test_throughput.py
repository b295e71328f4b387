"""Tokens per second of scoring and of statistics, as shares of what the matrix products in them allow.

The limit of a kind of work is the time of its matrix products alone, of the same shapes and in the same
dtype: the linears of all blocks; for scoring the output head at the masked positions, too; where sinks are
left out the products of queries and keys once more, which show the sinks; for Gram statistics the products
X^T X in float32, above the diagonal. A plain forward of the blocks reaches a share of its limit, and every
other kind of work is held to that share. All kinds run in turns on one thread, freed memory is kept as in the
notebooks, and time is that of the process.

Dimensions: R rows of text, T position, N tokens, I input features, D hidden width, G key-value heads of all
rows, Q queries that share them, E head width.
"""

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import linear

from sinkprune import corpus, load, nelbo
from sinkprune.evaluation.token_losses import HEAD_SLICE
from sinkprune_companion.run.allocator import keep_freed_memory
from sinkprune_core import Calibration, LanguageModel, Recipe, preset
from sinkprune_core.blocks import Rows, block_inputs, run_block, visit
from sinkprune_core.calibration.input_statistics import GRAM_STRIP, observe
from sinkprune_core.calibration.text import trajectory
from sinkprune_core.pruning.engine import dense_statistics

LENGTH, LEVELS = 128, 8
GOAL = 0.85  # of the share of the limit that a plain forward reaches
FORWARD = "a plain forward"
SCORING = "scoring (NELBO)"
DENSE = "statistics"
SINKS = "statistics with unstable, official and all sinks left out"
GRAM = "Gram statistics"
Work = Callable[[], object]


class Limit:
    """The matrix products of every kind of work, on inputs of the same shapes."""

    def __init__(self, lm: LanguageModel, rows: int, masked: int):
        self.linears = list(lm.all_linears().values())
        self.head = lm.model.get_output_embeddings()
        self.blocks = len(lm.blocks)
        self.rng = torch.Generator().manual_seed(0)
        self.dtype = lm.model.dtype
        widths = {each.in_features for each in self.linears}
        self.inputs = {width: self._input(rows * LENGTH, width) for width in widths}
        self.hidden_ND = self._input(masked, self.head.in_features)
        names = lm.linears(lm.blocks[0])
        read = {"q_proj", "o_proj", "gate_proj", "down_proj"}  # one linear for every distinct input
        self.gram_widths = [each.in_features for name, each in names.items() if name.split(".")[-1] in read]
        self.floats = {width: self.inputs[width].float() for width in set(self.gram_widths)}
        config = lm.model.config
        groups = rows * config.num_key_value_heads
        queries = config.num_attention_heads // config.num_key_value_heads * LENGTH
        self.query_GQE = self._input(groups * queries, config.head_dim).view(groups, queries, -1)
        self.key_GET = self._input(groups * LENGTH, config.head_dim).view(groups, LENGTH, -1).mT

    def _input(self, tokens: int, width: int) -> torch.Tensor:
        return torch.randn(tokens, width, generator=self.rng).to(self.dtype)

    def linears_of_the_blocks(self) -> None:
        for each in self.linears:
            linear(self.inputs[each.in_features], each.weight)

    def head_at_the_masks(self) -> None:
        for hidden_ND in self.hidden_ND.split(HEAD_SLICE):
            linear(hidden_ND, self.head.weight)

    def queries_and_keys(self) -> None:
        for _ in range(self.blocks):
            torch.bmm(self.query_GQE, self.key_GET)

    def grams(self) -> None:
        for _ in range(self.blocks):
            for width in self.gram_widths:
                input_NI = self.floats[width]
                for start in range(0, width, GRAM_STRIP):
                    torch.mm(input_NI[:, start : start + GRAM_STRIP].T, input_NI[:, start:])


def gram_statistics(lm: LanguageModel, ids_RT: torch.Tensor, batch: int) -> None:
    """Take what SparseGPT needs of every block, as pruning does, without pruning any."""
    states = block_inputs(lm, Rows(ids_RT, None), batch)
    for _, block in visit(lm, progress=False, what="Gram statistics"):
        with observe(lm.linears(block), gram=True) as observer:
            states = run_block(block, states, observer)
        observer.statistics()


def kinds_of_work(lm: LanguageModel, ids_NT: torch.Tensor, rows: int) -> tuple[dict[str, Work], int]:
    """Return every kind of work on as many rows of text, and how many positions are masked in scoring."""
    calibration = Calibration(ids_NT, batch=rows)
    ids_RT = trajectory(lm, calibration, LEVELS).flatten(0, 1)
    left_out = [
        Recipe(inputs="noised", propagation="dense", noise_levels=LEVELS, exclude=tokens)
        for tokens in ("unstable", "official", "all")
    ]
    noised = preset("noised-dense", noise_levels=LEVELS)
    work = {
        FORWARD: lambda: lm.hidden(ids_RT),
        SCORING: lambda: nelbo(lm, ids_NT, draws=LEVELS, batch=rows),
        DENSE: lambda: dense_statistics(lm, [noised], calibration, progress=False),
        SINKS: lambda: dense_statistics(lm, left_out, calibration, progress=False),
        GRAM: lambda: gram_statistics(lm, ids_RT, rows),
    }
    noise = nelbo(lm, ids_NT, draws=LEVELS, batch=rows).noise
    return work, round(float((noise * (LENGTH - 1)).sum()))


def in_words(dtype: str) -> str:
    """Return a dtype with the units that compute its products, on which in bfloat16 all ratios hang."""
    if dtype != "bfloat16":
        return dtype
    if torch.cpu._is_amx_tile_supported():
        return f"{dtype} with AMX"
    if torch.cpu._is_avx512_bf16_supported():
        return f"{dtype} with AVX-512"
    return f"{dtype} without units for it"


def seconds(run: Work) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


@pytest.mark.parametrize(("dtype", "sequences", "rounds"), [("bfloat16", 2, 3), ("float32", 1, 2)])
@torch.inference_mode()
def test_scoring_and_statistics_keep_up_with_a_plain_forward(dtype, sequences, rounds, record):
    keep_freed_memory()
    lm = load("smol-dlm", dtype)
    ids_NT = corpus.shipped_samples(LENGTH, held_out=True)[:sequences]
    rows = sequences * LEVELS
    tokens = rows * LENGTH
    work, masked = kinds_of_work(lm, ids_NT, rows)
    limit = Limit(lm, rows, masked)
    products = (limit.linears_of_the_blocks, limit.head_at_the_masks, limit.queries_and_keys, limit.grams)
    parts = {part: [] for part in products}
    times = {kind: [] for kind in work}
    for run in (*parts, *work.values()):
        run()
    for _ in range(rounds):
        for part, spent in parts.items():
            spent.append(seconds(part))
        for kind, run in work.items():
            times[kind].append(seconds(run))
    blocks, head, maps, grams = (statistics.median(spent) for spent in parts.values())
    limits = dict.fromkeys(work, blocks)
    limits |= {SCORING: blocks + head, SINKS: blocks + maps, GRAM: blocks + grams}
    medians = {kind: statistics.median(spent) for kind, spent in times.items()}
    shares = {kind: limits[kind] / medians[kind] for kind in work}
    forward = shares[FORWARD]
    names, unit = ("matrix products", "here"), "tokens/s"
    most, speed = ({kind: tokens / spent[kind] for kind in work} for spent in (limits, medians))
    what = f"{FORWARD} of smol-dlm in {in_words(dtype)}"
    record(what, shares.pop(FORWARD), most[FORWARD], speed[FORWARD], names, unit)
    reached = []
    for kind, share in shares.items():
        what = f"{kind}, smol-dlm in {in_words(dtype)}"
        against = share / forward
        reached.append(record(what, against, most[kind], speed[kind], names, unit, at_least=GOAL))
    assert all(reached)
