"""The groups of bad inputs: which file or value is spoiled, and what reads it."""

import dataclasses
import datetime
import json
import math
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import yaml
from hostile.fuzz import BROKEN_JSON, Case, Folder, spoiled_bytes, spoiled_values
from hostile.tiny import adapter_of, native_model
from safetensors.torch import load_file, save_file

from sinkprune_core.companion import claims, parameters
from sinkprune_core.companion.records import Run
from sinkprune_core.diffusion.samplers import Sampler
from sinkprune_core.evaluation.likelihood import nelbo
from sinkprune_core.evaluation.protocols import Protocol
from sinkprune_core.models.adapters import CONFIG, WEIGHTS, merge_adapter
from sinkprune_core.models.finite import check_finite
from sinkprune_core.models.language_model import CARD
from sinkprune_core.models.loading import load
from sinkprune_core.models.random_cases import CASES
from sinkprune_core.models.random_weights import write
from sinkprune_core.models.weight_files import INDEX
from sinkprune_core.pruning.calibration import Calibration
from sinkprune_core.pruning.recipe import Recipe
from sinkprune_core.training.settings import Training

TEXT = "the cat 12 is of"
IDS = torch.arange(22, 33)[None]  # ordinary tokens of every tiny vocabulary
MODEL = "model.safetensors"


def answer(folder: Path) -> tuple:
    """Return what a model in a folder says: a digest of logits, its mask token, how it reads a text."""
    lm = load(folder)
    check_finite(lm)
    with torch.no_grad():
        logits = lm.model(IDS, use_cache=False).logits
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"the logits of {folder} are not finite")
    return lm.kind, lm.mask_token_id, lm.logits_shifted, lm.encode(TEXT).tolist(), logits.sum(-1).tolist()


# files of a saved model


def weights(root: Path, seed: int = 0) -> Iterator[Case]:
    """The weights of a saved model: damaged bytes; tensors of another dtype or shape, gone or too many."""
    folder = Folder(native_model(root / "saved"), root / "weights")
    right = answer(folder.place)
    rng = random.Random(seed)
    data = (folder.sound / MODEL).read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    case = partial(Case, right=right, named=(MODEL, "weights in"))
    for done, bad in spoiled_bytes(data, rng, flips=150, cuts=40):
        yield case(done, partial(folder.with_file, MODEL, bad, answer))
    for done, bad in spoiled_bytes(data[:header], rng, flips=250, cuts=0):  # of the header alone
        yield case(f"header, {done}", partial(folder.with_file, MODEL, bad + data[header:], answer))
    card = json.loads((folder.sound / CARD).read_text())
    del card["sha256"]  # so that tensors are compared with the model, and not only files with their digests
    (folder.sound / CARD).write_text(json.dumps(card))
    folder.reset()
    for done, bad in spoiled_bytes(data[:header], rng, flips=250, cuts=0):
        yield case(
            f"header without digest, {done}", partial(folder.with_file, MODEL, bad + data[header:], answer)
        )
    for name, done, tensors in spoiled_tensors(load_file(folder.sound / MODEL)):
        yield Case(done, partial(_with_tensors, folder, tensors), right, (name, MODEL, "weights in"))


def spoiled_tensors(sound: dict[str, torch.Tensor]) -> Iterator[tuple[str, str, dict[str, torch.Tensor]]]:
    """Yield (tensor, what was done, tensors) with one tensor spoiled at a time."""
    for name, value in sound.items():
        rest = {key: tensor for key, tensor in sound.items() if key != name}
        yield name, f"no {name}", rest
        yield name, f"{name} renamed", {**rest, f"{name}x": value}
        yield name, f"{name} twice", {**sound, f"{name}.copy": value.clone()}
        for dtype in (torch.int8, torch.int64, torch.bool, torch.uint8, torch.float64):
            yield name, f"{name} in {dtype}", {**rest, name: value.to(dtype)}
        yield name, f"{name} one row less", {**rest, name: value[:-1].contiguous()}
        yield name, f"{name} emptied", {**rest, name: value[:0].contiguous()}
        yield name, f"{name} flattened", {**rest, name: value.flatten()[: max(1, value.numel() - 1)].clone()}
        yield name, f"{name} with another dimension", {**rest, name: value[None].contiguous()}
        for number in (math.nan, math.inf, -math.inf):
            bad = value.clone()
            bad.view(-1)[-1] = number
            yield name, f"{name} with {number}", {**rest, name: bad}


def _with_tensors(folder: Folder, tensors: dict[str, torch.Tensor]) -> tuple:
    file = folder.place / "spoiled.tmp"
    save_file(tensors, file, metadata={"format": "pt"})
    data = file.read_bytes()
    file.unlink()
    return folder.with_file(MODEL, data, answer)


def cards(root: Path) -> Iterator[Case]:
    """The card of a saved model, field by field."""
    folder = Folder(native_model(root / "saved"), root / "cards")
    right = answer(folder.place)
    sound = json.loads((folder.sound / CARD).read_text())
    for field, done, bad in spoiled_values(sound):
        if (field, bad.get(field)) in (("mask_token_id", 0), ("name", "no"), ("name", "")):
            continue  # allowed values, of another model
        named = (CARD, field, "mask")
        yield Case(done, partial(folder.with_file, CARD, bad, answer), right, named)
    for text in BROKEN_JSON:
        yield Case(f"card {text[:9]!r}", partial(folder.with_file, CARD, text, answer), right, (CARD,))


# configurations


MEANT = {
    ("llama", "no rope_theta"),
    ("qwen2", "no rope_theta"),
    ("qwen3", "no rope_theta"),
    ("llama", "rope_theta=null"),
    ("qwen2", "rope_theta=null"),
    ("qwen3", "rope_theta=null"),
}  # what says nothing of it means transformers' 10,000, as in Llama 2's published file
OTHER_MODELS = {
    "mask_token_id": (0,),
    "tie_word_embeddings": (True,),
    "weight_tying": (True,),
    "is_causal": (True,),
    "attention_bias": (True,),
    "use_sliding_window": (True,),
    "rope_theta": (2**31,),
}  # allowed values that are those of another model


def configurations(root: Path) -> Iterator[Case]:
    """Every field of every public format's configuration."""
    for name, case in CASES.items():
        write(case, root / "sound" / name)
        folder = Folder(root / "sound" / name, root / "configurations" / name)
        right = answer(folder.place)
        file = "config.json" if (folder.sound / "config.json").is_file() else "lit_config.json"
        sound = json.loads((folder.sound / file).read_text())
        for field, done, bad in spoiled_values(sound):
            if (name, done) in MEANT or bad.get(field) in OTHER_MODELS.get(field, ()):
                continue
            named = (file, field, str(folder.place))
            yield Case(f"{name}: {done}", partial(folder.with_file, file, bad, answer), right, named)
        for text in BROKEN_JSON:
            named = (file, "model_type", "width")
            yield Case(f"{name}: {text[:9]!r}", partial(folder.with_file, file, text, answer), right, named)


ROPES = (
    {"rope_type": "linear"},
    {"rope_type": "yarn", "factor": "two"},
    {"rope_type": "llama3", "factor": 8.0},
    {"rope_type": "longrope", "factor": 4.0},
    {"rope_type": "su", "factor": 2.0},
    {"rope_type": 3},
    {"type": "dynamic"},
    {"type": ["linear"], "factor": 2.0},
    {"rope_type": "dynamic", "factor": -1.0},
    {"rope_type": "linear", "factor": 0},
    {"rope_type": "linear", "factor": None},
    {"rope_type": "yarn", "factor": 1e300},
    {"rope_type": "longrope", "short_factor": [], "long_factor": []},
    {"rope_type": "longrope", "short_factor": ["a"], "long_factor": [1.0]},
)


def ropes(root: Path) -> Iterator[Case]:
    """Types of rotary frequencies that are not known, or lack what they need."""
    for name in ("llama", "qwen2", "qwen3", "dream", "a2d qwen3", "diffullama"):
        write(CASES[name], root / "sound" / name)
        folder = Folder(root / "sound" / name, root / "ropes" / name)
        sound = json.loads((folder.sound / "config.json").read_text())
        for field in ("rope_scaling", "rope_parameters"):
            for rope in ROPES:
                bad = {**sound, field: rope}
                run = partial(folder.with_file, "config.json", bad, answer)
                yield Case(f"{name}: {field}={rope}", run, None, ("config.json",))


# indices, tokenizers


def indices(root: Path, seed: int = 0) -> Iterator[Case]:
    """The index of a model in shards, and the shards."""
    for name in ("llada", "llama"):
        write(CASES[name], root / "sound" / name)
        folder = Folder(root / "sound" / name, root / "indices" / name)
        right = answer(folder.place)
        sound = json.loads((folder.sound / INDEX).read_text())
        place = sound["weight_map"]
        named = (INDEX, "index of", "weights in", "safetensors")
        case = partial(Case, right=right, named=named)

        def read(bad, folder=folder):
            return folder.with_file(INDEX, bad, answer)

        for _, done, bad in spoiled_values(sound):
            yield case(f"{name}: {done}", partial(read, bad))
        for text in BROKEN_JSON:
            yield case(f"{name}: {text[:9]!r}", partial(read, text))
        outside = (
            "../x.safetensors",
            "/etc/passwd",
            "sub/../../x.safetensors",
            "",
            ".",
            "..",
            "a\0.safetensors",
        )
        for tensor in list(place)[::5]:
            for wrong in (*outside, 3, None, [], "gone.safetensors", "config.json"):
                bad = {"weight_map": {**place, tensor: wrong}}
                yield case(f"{name}: {tensor} in {wrong!r}", partial(read, bad))
            yield case(
                f"{name}: more than is there", partial(read, {"weight_map": {**place, "more": place[tensor]}})
            )
            less = {key: file for key, file in place.items() if key != tensor}
            yield case(f"{name}: {tensor} not listed", partial(read, {"weight_map": less}))
        rng = random.Random(seed)
        for shard in sorted(set(place.values())):
            data = (folder.sound / shard).read_bytes()
            header = 8 + int.from_bytes(data[:8], "little")
            for done, bad in spoiled_bytes(data[:header], rng, flips=40, cuts=0):
                run = partial(folder.with_file, shard, bad + data[header:], answer)
                yield case(f"{name}: {shard}, header, {done}", run)


def tokenizers(root: Path, seed: int = 0) -> Iterator[Case]:
    """Tokenizer files: damaged ones of a saved model, fields of the wrong type in published ones."""
    saved = Folder(native_model(root / "saved"), root / "tokenizers" / "saved")
    right = answer(saved.place)
    file = "tokenizer.json"
    rng = random.Random(seed)
    for done, bad in spoiled_bytes((saved.sound / file).read_bytes(), rng, flips=60, cuts=20):
        yield Case(
            f"saved, {done}", partial(saved.with_file, file, bad, answer), right, (file, "tokenizer in")
        )
    for name in ("llada", "qwen3", "diffugpt"):
        write(CASES[name], root / "sound" / name)
        folder = Folder(root / "sound" / name, root / "tokenizers" / name)
        right = answer(folder.place)
        named = ("tokenizer", "mask")
        sound = json.loads((folder.sound / file).read_text())
        for _, done, bad in spoiled_values(sound, keep=("added_tokens",)):
            is_another = any(f"{part}=null" == done or f"no {part}" == done for part in sound)
            if not is_another or "model" in done:
                yield Case(f"{name}: {done}", partial(folder.with_file, file, bad, answer), right, named)
        larger = json.loads(json.dumps(sound))
        larger["model"]["vocab"]["beyond"] = 10_000
        yield Case(
            f"{name}: larger than the model", partial(folder.with_file, file, larger, answer), None, named
        )
        for text in BROKEN_JSON:
            yield Case(f"{name}: {text[:9]!r}", partial(folder.with_file, file, text, answer), right, named)


# adapters


def adapters(root: Path, seed: int = 0) -> Iterator[Case]:
    """Configuration and tensors of an adapter."""
    base = native_model(root / "saved", kind="autoregressive")
    folder = Folder(adapter_of(base, root / "adapter"), root / "adapters")

    def merged(place: Path) -> str:
        model = merge_adapter(load(base).model, place, torch.float32)
        return str([parameter.sum().item() for parameter in model.parameters()])

    right = merged(folder.place)
    sound = json.loads((folder.sound / CONFIG).read_text())
    for field, done, bad in spoiled_values(sound):
        is_allowed = (field, bad.get(field)) in (("lora_alpha", 2**31),)
        if not is_allowed:
            yield Case(done, partial(folder.with_file, CONFIG, bad, merged), right, (CONFIG, field, WEIGHTS))
    for text in BROKEN_JSON:
        yield Case(f"{text[:9]!r}", partial(folder.with_file, CONFIG, text, merged), right, (CONFIG,))
    rng = random.Random(seed)
    data = (folder.sound / WEIGHTS).read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    named = (WEIGHTS, "not finite")
    for done, bad in spoiled_bytes(data[:header], rng, flips=60, cuts=0):
        run = partial(folder.with_file, WEIGHTS, bad + data[header:], merged)
        yield Case(f"header, {done}", run, right, named)
    for done, bad in spoiled_bytes(data, rng, flips=0, cuts=20):
        if done != "zeros":
            yield Case(done, partial(folder.with_file, WEIGHTS, bad, merged), right, named)
    tensors = load_file(folder.sound / WEIGHTS)
    for name, done, bad in list(spoiled_tensors(tensors)):
        file = folder.place / "spoiled.tmp"
        save_file(bad, file, metadata={"format": "pt"})
        run = partial(folder.with_file, WEIGHTS, file.read_bytes(), merged)
        yield Case(done, run, right, (*named, name))


# records, findings, the ledger


def records(root: Path, seed: int = 0) -> Iterator[Case]:
    """A table that was written, and the file beside it that says where it comes from."""
    frame = pd.DataFrame({"value": [0.25 * row for row in range(40)], "word": ["a,b"] * 40})

    class Here(Run):
        records = root / "records"

    def table() -> pd.DataFrame:
        return frame

    run = Here("notebook", "quick", {})
    run.record("values", table, seed=3)
    (csv,) = run.records.glob("*.csv")
    about = csv.with_suffix(".json")
    kept = {file: file.read_bytes() for file in (csv, about)}
    right = run.record("values", table, seed=3).to_csv()

    def read(file: Path, bad: bytes) -> str:
        for each, data in kept.items():
            each.write_bytes(data)
        file.write_bytes(bad)
        return Here("notebook", "quick", {}).record("values", table, seed=3).to_csv()

    rng = random.Random(seed)
    for file in kept:
        for done, bad in spoiled_bytes(kept[file], rng, flips=40, cuts=20):
            yield Case(f"{file.suffix}, {done}", partial(read, file, bad), right, (file.name,))
    for text in BROKEN_JSON:
        yield Case(f"about {text[:9]!r}", partial(read, about, text.encode()), right, (about.name,))


def findings(root: Path) -> Iterator[Case]:
    """Findings of a notebook, and rows of the ledger."""
    value = {"value": 0.5, "low": 0.25, "high": 0.75, "units": 8, "method": "bootstrap"}
    folder = root / "findings-root"
    file = folder / "findings" / "01.json"
    file.parent.mkdir(parents=True)

    def read(content: object) -> str:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(claims.findings(folder))

    right = read({"findings": {"found": value}})
    allowed = {"value", "low", "high"}  # any number in order
    for field, done, bad in spoiled_values(value):
        is_number = isinstance(bad.get(field), (int, float)) and not isinstance(bad.get(field), bool)
        is_word = field == "method" and isinstance(bad.get(field), str)
        is_count = (
            field == "units" and isinstance(bad.get(field), int) and not isinstance(bad.get(field), bool)
        )
        if not ((field in allowed and is_number) or is_word or is_count):
            yield Case(done, partial(read, {"findings": {"found": bad}}), right, (file.name,))
    for content in ({}, {"findings": 3}, {"findings": []}, {"findings": {"found": 3}}, {"findings": None}):
        yield Case(f"{content}", partial(read, content), right, (file.name,))
    for text in BROKEN_JSON:
        yield Case(f"{text[:9]!r}", partial(read, text), right, (file.name,))


def ledgers(root: Path) -> Iterator[Case]:
    """The ledger of claims: broken YAML, fields of a row that are wrong."""
    file = root / "claims.yml"
    row = yaml.safe_load(claims.FILE.read_text(encoding="utf-8"))["claims"][0]

    def read(text: str) -> str:
        file.write_text(text, encoding="utf-8")
        return str(claims.ledger(file))

    broken = ["", "[", "claims", "claims: 3", "claims: [3]", "claims: [{}]", "- 1", "claims: {a: 1}", "\x00"]
    broken += ["claims:", *(f"claims: [{{id: {wrong}}}]" for wrong in ("3", "[]", "null", "x"))]
    for text in broken:
        yield Case(f"{text!r}", partial(read, text), None, (file.name,))
    for field in row:
        for wrong in ([1], {"a": 1}, datetime.date(2026, 1, 1), math.nan, True):
            text = yaml.safe_dump({"claims": [{**row, field: wrong}]})
            yield Case(f"{field}: {wrong}", partial(read, text), None, (file.name, field))
        if field not in ("published", "against", "side", "kind", "margin"):
            without = {key: value for key, value in row.items() if key != field}
            run = partial(read, yaml.safe_dump({"claims": [without]}))
            yield Case(
                f"no {field}", run, read(yaml.safe_dump({"claims": [row]})), (file.name, field, "claim")
            )


# numbers


NUMBERS: dict[type, dict[str, tuple]] = {
    Sampler: {
        "length": (0, -1),
        "steps": (0, -1),
        "block": (0, -1, -32),
        "temperature": (-1, math.nan, math.inf, -math.inf),
        "order_temperature": (-1, math.nan, math.inf),
        "guidance": (-1, math.nan, math.inf),
        "top_p": (0, -1, 2, math.nan, math.inf),
        "top_k": (0, -1),
        "order": ("x", None),
        "schedule": ("x",),
        "proposal": ("x",),
    },
    Protocol: {
        "masking": ("x",),
        "draws": (0, -1, 7),
        "grid": (0, -1),
        "guidance": (-1, math.nan, math.inf),
        "chunk": (0, -1, 5),
        "context": (0, -1, 5),
    },
    Training: {
        "kind": ("x",),
        "tokens": (0, -1),
        "batch_tokens": (0, -1, 1),
        "learning_rate": (0, -1, math.nan, math.inf),
        "rank": (0, -1),
        "alpha": (0, -1),
        "warmup_steps": (0, -1),
        "decay_share": (-0.1, 1.1, math.nan, math.inf),
        "lengths": ((), (1,), (0,), (-1,), (10_000,)),
        "samples": (0, -1),
    },
    Recipe: {
        "sparsity": (-0.1, 1, 1.5, math.nan, math.inf),
        "noise_levels": (0, -1),
        "pattern": ("x", "0:4", "5:4", "2:0"),
        "damping": (-1, math.nan, math.inf),
        "block_size": (0, -1),
    },
}


def numbers(root: Path) -> Iterator[Case]:
    """Numbers that settings must not have, and ids that cannot calibrate or be scored."""
    for cls, wrong in NUMBERS.items():
        known = {field.name for field in dataclasses.fields(cls)}
        for field, values in wrong.items():
            for value in values if field in known else ():
                yield Case(f"{cls.__name__}({field}={value})", partial(cls, **{field: value}), None, (field,))
    lm = load(native_model(root / "saved"))
    for draws in (0, -1):
        yield Case(f"nelbo(draws={draws})", partial(nelbo, lm, IDS, draws), None, ("draws",))
    for batch in (0, -1):
        yield Case(f"nelbo(batch={batch})", partial(nelbo, lm, IDS, batch=batch), None, ("batch",))
        yield Case(f"Calibration(batch={batch})", partial(Calibration, IDS, batch=batch), None, ("batch",))
    for ids in (IDS[:, :1], IDS[:0], IDS[:, :0], IDS[0]):
        yield Case(f"nelbo of {tuple(ids.shape)}", partial(nelbo, lm, ids), None, ("ids",))
        yield Case(f"Calibration of {tuple(ids.shape)}", partial(Calibration, ids), None, ("calibration",))
    for ids in (IDS.float(), IDS.int(), IDS.tolist(), None):
        yield Case(f"Calibration of {type(ids)}", partial(Calibration, ids), None, ("calibration",))


def notebook_parameters(root: Path) -> Iterator[Case]:
    """Parameters of notebooks: every name with a range, and values that are none."""
    del root
    plain = {"profile": "str", "margin": "float", "sparsity": "float", "model": "str", "pattern": "str"}
    for name in parameters.RANGES:
        kind = plain.get(name, "int")
        if name in ("sparsities", "twin_sparsities", "ratios"):
            kind = "list[float]"
        elif name in ("twin", "recipes", "patterns") or name.endswith(("recipes", "baselines")):
            kind = "list[str]"
        wrong = (
            -1,
            -0.5,
            math.nan,
            math.inf,
            -math.inf,
            "\x00",
            "../x",
            "",
            None,
            True,
            {},
            [None],
            [math.nan],
        )
        for value in wrong:
            run = partial(parameters.check, "notebook", {name: kind}, {name: value})
            yield Case(f"{name}: {kind}={value!r}", run, None, (name,))


GROUPS = {
    "weights": weights,
    "cards of saved models": cards,
    "configurations": configurations,
    "rotary frequencies": ropes,
    "indices and shards": indices,
    "tokenizers": tokenizers,
    "adapters": adapters,
    "records": records,
    "findings": findings,
    "ledger of claims": ledgers,
    "numbers of settings": numbers,
    "parameters of notebooks": notebook_parameters,
}
