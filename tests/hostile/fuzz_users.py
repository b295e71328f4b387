"""What users bring: functions of their own, weights that overflow, ids of other models, odd local data."""

import json
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from hostile.fuzz import BROKEN_JSON, WRONG, Case, spoiled_bytes
from hostile.tiny import native_model
from public_formats import PAGES, RAW, put

from sinkprune_companion.harness.local_data import pairs, wikitext
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.evaluation.conditional_likelihood import exact_log_likelihood, log_likelihood, perplexity
from sinkprune_core.evaluation.likelihood import nelbo, nll
from sinkprune_core.evaluation.protocols import Protocol
from sinkprune_core.evaluation.two_choice import accuracy
from sinkprune_core.models.blocks import weights_kept
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.models.loading import load, open_checkpoint
from sinkprune_core.models.streaming import stream
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import Recipe, preset
from sinkprune_core.sinks.trace import trace

# functions of users


PLACES = ("in memory", "sequential", "streamed", "sequential, streamed")
NOISED = {"inputs": "noised", "noise_levels": 2, "sink_std": 1.0}
Prune = Callable[..., tuple]  # of a function, a place and perhaps a work folder: see `_pruned`


def users_functions(root: Path) -> Iterator[Case]:
    """What a function of the user's returns and closes over, and where the model lies."""
    folder = native_model(root / "saved")
    prune_by = partial(_pruned, folder)
    yield from _returned(prune_by, root)
    yield from _told_apart(prune_by, root)
    yield from _in_every_place(prune_by, root)


def _ids(rows: int = 3, length: int = 12) -> torch.Tensor:
    return torch.randint(22, 60, (rows, length), generator=torch.Generator().manual_seed(rows))


def _pruned(folder: Path, function: Callable, place: str, work: Path) -> tuple:
    """Return the share that was left out, and all weights of the blocks, as numbers."""
    propagation = "sequential" if place.startswith("sequential") else "dense"
    recipe = Recipe(propagation=propagation, exclude=function, **NOISED)
    lm = load(folder)
    if "streamed" in place:
        lm = stream(open_checkpoint(folder), "streamed", torch.float32)
    report = prune(lm, recipe, Calibration(_ids()), progress=False, work=work)
    sums = []
    for layer in range(len(lm.blocks)):
        with lm.resident(layer) as block:
            sums += [linear.weight.double().abs().sum().item() for linear in lm.linears(block).values()]
    return report.left_out_share, sums


def first_half(mass_NST: torch.Tensor) -> torch.Tensor:
    """Return the first half of every state, float32."""
    length = mass_NST.shape[-1]
    return (torch.arange(length) < length // 2).expand_as(mass_NST).float()


RETURNED = {
    "bool": (lambda half: half.bool(), True),
    "float64": (lambda half: half.double(), True),
    "with a gradient": (lambda half: half.clone().requires_grad_(), True),
    "a view": (lambda half: half[:1].expand_as(half), True),
    "twos": (lambda half: half * 2, False),
    "NaN": (lambda half: half * math.nan, False),
    "complex": (lambda half: half.to(torch.complex64), False),
    "sparse": (lambda half: half.to_sparse(), False),
    "meta": (lambda half: half.to("meta"), False),
    "one token less": (lambda half: half[..., :-1], False),
    "numpy": (lambda half: half.numpy(), False),
    "nothing": (lambda half: None, False),
}


def _returned(prune_by: Prune, root: Path) -> Iterator[Case]:
    for place in PLACES:
        right = prune_by(_returning(RETURNED["bool"][0]), place, root / "returned" / place)
        for name, (change, is_right) in RETURNED.items():
            run = partial(prune_by, _returning(change), place, root / "returned" / f"{place} {name}")
            yield Case(f"returns {name}, {place}", run, right if is_right else None, ("exclude",))


def _returning(change: Callable) -> Callable:
    def choice(context):
        return change(first_half(context.profile_NST))

    return choice


VALUES = {
    "floats": (0.25, 0.5),
    "arrays": (np.zeros(2000), np.eye(1, 2000, 1000)[0] / 2),
    "tensors": (torch.zeros(2000), torch.eye(2000)[1000] / 2),
}


def _holding(value: object) -> Callable:
    def choice(context, held=value):
        return torch.full_like(context.profile_NST, float(np.sum(np.asarray(held))))

    return choice


def _closing_over(value: object) -> Callable:
    def choice(context):
        return first_half(context.profile_NST) if value is not None else None

    return choice


def _told_apart(prune_by: Prune, root: Path) -> Iterator[Case]:
    """In one work folder, a function after another that differs in one value it holds."""
    for name, (one, other) in VALUES.items():
        right = prune_by(_holding(other), "in memory", root / "apart" / f"{name} alone")
        prune_by(_holding(one), "in memory", root / "apart" / name)
        run = partial(prune_by, _holding(other), "in memory", root / "apart" / name)
        yield Case(f"holds other {name}", run, right, ("exclude",))
    right = prune_by(_closing_over(0), "in memory", root / "apart" / "plain")
    for value in (root.open, object(), random.Random(0), torch.nn.Linear(1, 1)):
        kind = type(value).__name__
        run = partial(prune_by, _closing_over(value), "in memory", root / "apart" / "of any kind")
        yield Case(f"closes over {kind}, in a work folder", run, right, ("exclude",))


def _in_every_place(prune_by: Prune, root: Path) -> Iterator[Case]:
    """A threshold over all that a function sees leaves out the same wherever the model lies."""

    def choice(context):
        return context.profile_NST > context.profile_NST.mean((0, 2), keepdim=True)

    def share(place: str) -> float:
        return prune_by(choice, place, root / "places" / place)[0]

    right = share(PLACES[0])
    for place in PLACES[1:]:
        yield Case(f"a threshold, {place}", partial(share, place), right, ("exclude",))


# what every use of a model takes


SAMPLER = Sampler(length=4, steps=2, block=None)
SHORT = Protocol(draws=2, grid=1, chunk=2, context=4)
ITEMS = [
    {"context": "the 12", "choices": ["13", "14"], "answer": 0, "group": "g", "pair": 0, "template": "t"}
]


def _pruning(name: str, **changes: object) -> Callable:
    def run(lm: LanguageModel, ids: torch.Tensor) -> list:
        with weights_kept(lm):
            return [prune(lm, preset(name, **changes), Calibration(ids), progress=False).sparsity]

    return run


USES: dict[str, dict[str, Callable]] = {
    "diffusion": {
        "nelbo": lambda lm, ids: nelbo(lm, ids, draws=2).value.tolist(),
        "pairs": lambda lm, ids: log_likelihood(
            lm, [(row[:2], row[2:]) for row in ids], SHORT
        ).value.tolist(),
        "perplexity": lambda lm, ids: [perplexity(lm, ids.flatten(), SHORT).nats],
        "generate": lambda lm, ids: generate(lm, ids, SAMPLER).flatten().tolist(),
        "trace": lambda lm, ids: trace(lm, ids, SAMPLER, progress=False).mass_BSK.flatten().tolist(),
        "unstable": _pruning("unstable", noise_levels=2),
        "sequential": _pruning("unstable", noise_levels=2, propagation="sequential"),
        "sparsegpt": _pruning("sparsegpt", block_size=16),
        "owl": _pruning("wanda", allocation="owl", owl_m=2.0),
        "structured": _pruning("structured"),
    },
    "autoregressive": {
        "nll": lambda lm, ids: nll(lm, ids).value.tolist(),
        "pairs": lambda lm, ids: exact_log_likelihood(lm, [(row[:2], row[2:]) for row in ids]).value.tolist(),
        "decode": lambda lm, ids: decode(lm, ids, 4).flatten().tolist(),
        "trace": lambda lm, ids: trace(lm, ids, SAMPLER, progress=False).mass_BSK.flatten().tolist(),
        "wanda": _pruning("wanda"),
    },
}


def overflowing(root: Path) -> Iterator[Case]:
    """Weights so large that activations overflow in one dtype or another, in every use of a model."""
    for kind, uses in USES.items():
        folder = native_model(root / kind, kind)
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            for scale in (1e4, 1e36):
                for part in ("mlp", "attention", "head"):
                    lm = _scaled(load(folder, dtype), part, scale)
                    if lm is None:
                        continue
                    for name, use in (
                        uses | {"suite": lambda lm, ids: accuracy(lm, ITEMS).margin.tolist()}
                    ).items():
                        run = partial(_all_finite, use, lm)
                        yield Case(f"{kind} {dtype} {part} × {scale:g}, {name}", run, True, ("finite",))


def _scaled(lm: LanguageModel, part: str, scale: float) -> LanguageModel | None:
    """Return a model with larger weights in one part; None where a weight itself would overflow."""
    if part == "head":
        head = lm.model.get_output_embeddings()
        weights = [head.weight]
    else:
        names = {"mlp": ("up_proj", "gate_proj"), "attention": ("q_proj", "v_proj")}[part]
        found = [pair for block in lm.blocks for pair in lm.linears(block).items()]
        weights = [linear.weight for name, linear in found if name.endswith(names)]
    for weight in weights:
        weight.data.mul_(scale)
        if not bool(torch.isfinite(weight).all()):
            return None
    return lm


def _all_finite(use: Callable, lm: LanguageModel) -> bool:
    return all(math.isfinite(number) for number in use(lm, _ids(2, 8)))


def ids_of_others(root: Path) -> Iterator[Case]:
    """Ids of another type or vocabulary, and more of them than there are positions."""
    for kind, uses in USES.items():
        lm = load(native_model(root / kind, kind))
        vocabulary = lm.model.config.vocab_size
        positions = lm.model.config.max_position_embeddings
        for name, use in uses.items():
            for wrong in (-1, vocabulary):
                for place in ((0, 0), (-1, -1)):
                    ids = _ids(2, 8)
                    ids[place] = wrong
                    yield Case(
                        f"{kind} id {wrong} at {place}, {name}", partial(use, lm, ids), None, ("token id",)
                    )
            for dtype in (torch.int32, torch.uint8, torch.float32, torch.bool):
                run = partial(use, lm, _ids(2, 8).to(dtype))
                yield Case(f"{kind} ids in {dtype}, {name}", run, None, ("ids", "dtype"))
            if name != "perplexity":
                run = partial(use, lm, _ids(2, positions + 3))
                yield Case(f"{kind} {positions + 3} tokens, {name}", run, None, ("positions",))


# local data


def local_data(root: Path, seed: int = 0) -> Iterator[Case]:
    """Files of BLiMP and WikiText-2 with values of other types, other bytes, and marks of other editors."""
    yield from _bad_pairs(root)
    yield from _bad_pages(root, random.Random(seed))


def _bad_pairs(root: Path) -> Iterator[Case]:
    file = root / "blimp" / "passive_1.jsonl"
    sound = {"sentence_good": "a b", "sentence_bad": "b a"}
    right = [sound, sound]

    def read(text: str | bytes) -> list:
        return pairs([put(file, text)])

    line = json.dumps(sound) + "\n"
    yield Case("pairs with a mark of byte order", partial(read, "\ufeff" + line * 2), right, ())
    yield Case("pairs with other ends of lines", partial(read, (line * 2).replace("\n", "\r\n")), right, ())
    for field in sound:
        for wrong in (*WRONG, "\ud800", "a\udfff", None):
            if isinstance(wrong, str) and wrong.strip() and wrong.isascii():
                continue
            text = line + json.dumps({**sound, field: wrong})
            yield Case(f"pair with {field}={wrong!r}", partial(read, text), None, (f"{file}, line 2",))
    for text in (*BROKEN_JSON[1:], '{"a": ' * 100_000, "\xff", "\x00\x00"):
        run = partial(read, line + text)
        yield Case(f"pairs and {text[:9]!r}", run, None, (f"{file}, line 2", str(file)))
    yield Case("pairs in UTF-16", partial(read, (line * 2).encode("utf-16")), None, (str(file),))


def _bad_pages(root: Path, rng: random.Random) -> Iterator[Case]:
    folder = root / "WikiText2"
    file = folder / "test.parquet"

    def read(*columns: object, name: str = "page", data: bytes | None = None) -> list:
        file.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            pyarrow.parquet.write_table(pyarrow.table({name: list(columns)}), file)
        else:
            file.write_bytes(data)
        return [page.strip() for page in wikitext(folder)]

    right = read(*PAGES)
    data = file.read_bytes()
    for wrong in (3, 1.5, True, b"a", None, "", " \n", ["a"], {"a": 1}):
        yield Case(f"page {wrong!r}", partial(read, wrong), None, (f"{file}, row 1",))
    for wrong in (3, 1.5, True, b"a", ["a"]):
        yield Case(f"line {wrong!r}", partial(read, wrong, name="text"), None, (f"{file}, row 1",))
    yield Case("no column of text", partial(read, "a", name="question"), None, (str(file),))
    for done, bad in spoiled_bytes(data, rng, flips=80, cuts=20):
        if "flipped" not in done:
            yield Case(f"parquet, {done}", partial(read, data=bad), right, (str(file),))
            continue

        def is_read(bad: bytes = bad) -> bool:  # parquet keeps no digest of what a bit may change
            return all(isinstance(page, str) for page in read(data=bad))

        yield Case(f"parquet, {done}", is_read, True, (str(file),))
    raw = root / "raw"

    def plain(text: str | bytes) -> list:
        return [page.strip() for page in wikitext(put(raw / "wiki.test.raw", text).parent)]

    yield Case("text with a mark of byte order", partial(plain, b"\xef\xbb\xbf" + RAW.encode()), right, ())
    for text in (RAW.encode("utf-16"), b"\xff" + RAW.encode(), b"", b" \n"):
        yield Case(f"text of {text[:9]!r}", partial(plain, text), None, ("wiki.test.raw",))
