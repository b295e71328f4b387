"""What users bring: weights that overflow, and odd local data."""

import json
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

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
from sinkprune_core.models.loading import load
from sinkprune_core.pruning.engine import prune
from sinkprune_core.pruning.recipe import preset
from sinkprune_core.sinks.trace import trace


def _ids(rows: int = 3, length: int = 12) -> torch.Tensor:
    return torch.randint(22, 60, (rows, length), generator=torch.Generator().manual_seed(rows))


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
            yield Case(f"pair with {field}={wrong!r}", partial(read, text), None, (f"{file}, row 2",))
    for text in (*BROKEN_JSON[1:], '{"a": ' * 100_000, "\xff", "\x00\x00"):
        run = partial(read, line + text)
        yield Case(f"pairs and {text[:9]!r}", run, None, (f"{file}, row 2", str(file)))
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
