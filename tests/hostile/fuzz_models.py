"""Bad files of models and adapters: which file is spoiled, and what reads it."""

import hashlib
import json
import math
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from hostile.fuzz import BROKEN_JSON, Case, Folder, spoiled_bytes, spoiled_values
from peft import LoraConfig, get_peft_model
from random_models.cases import CASES
from random_models.writing import write
from safetensors.torch import load_file, save_file

from sinkprune.models.adapters import CONFIG, WEIGHTS, merge_adapter
from sinkprune.models.card import CARD
from sinkprune.models.loading import load
from sinkprune.models.saving import save
from sinkprune.models.weight_files import INDEX
from sinkprune_core.language_model import LanguageModel

TEXT = "the cat 12 is of"
IDS = torch.arange(22, 33)[None]  # ordinary tokens of every tiny vocabulary
MODEL = "model.safetensors"


def answer(folder: Path | str) -> tuple:
    """Return what a model, by its folder or name, says: logits, its mask token, how it reads a text."""
    lm = load(folder)
    with torch.no_grad():
        logits = lm.head(lm.hidden(IDS)[0])
    return lm.kind, lm.mask_token_id, lm.logits_shifted, reading(lm), logits.sum(-1).tolist()


def reading(lm: LanguageModel) -> list[int] | str:
    """Return how a model reads a text, or what it says where a word of it is its mask."""
    try:
        return lm.encode(TEXT).tolist()
    except ValueError as error:
        return str(error)


def native_model(folder: Path, kind: str = "diffusion") -> Path:
    """Return the folder of a tiny saved Llama, written once."""
    if not folder.exists():
        name = "a2d qwen3" if kind == "diffusion" else "llama"
        write(CASES[name], folder.with_name(f"{folder.name}-public"))
        save(load(folder.with_name(f"{folder.name}-public")), folder)
    return folder


def adapter_of(base: Path, folder: Path) -> Path:
    """Return the folder of an adapter of a tiny model, both of whose factors are random."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(load(base).model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    model.save_pretrained(folder)
    return folder


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
        named = (name, MODEL, "weights in", "its weights are damaged")
        yield Case(done, partial(_with_tensors, folder, tensors), right, named)


def spoiled_tensors(sound: dict[str, torch.Tensor]) -> Iterator[tuple[str, str, dict[str, torch.Tensor]]]:
    """Yield (tensor, what was done, tensors) with one tensor spoiled at a time."""
    for name, value in sound.items():
        rest = {key: tensor for key, tensor in sound.items() if key != name}
        yield name, f"no {name}", rest
        yield name, f"{name} renamed", {**rest, f"{name}x": value}
        yield name, f"{name} twice", {**sound, f"{name}.copy": value.clone()}
        for dtype in (torch.int8, torch.bool, torch.float64):
            yield name, f"{name} in {dtype}", {**rest, name: value.to(dtype)}
        yield name, f"{name} one row less", {**rest, name: value[:-1].contiguous()}
        yield name, f"{name} emptied", {**rest, name: value[:0].contiguous()}
        for number in (math.nan, math.inf):
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
        others = (("mask_token_id", 0), ("name", "no"), ("name", ""), ("logits_shifted", True))
        if (field, bad.get(field)) in others:
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
        for tensor in list(place)[::5]:
            for wrong in ("a\0.safetensors", [], "gone.safetensors", "config.json"):
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
        for text in BROKEN_JSON:
            yield Case(f"{name}: {text[:9]!r}", partial(folder.with_file, file, text, answer), right, named)


# the hub's cache


PUBLISHED = "dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1"
COMMIT = "c" * 40


def hub_caches(root: Path, seed: int = 0) -> Iterator[Case]:
    """The hub's cache without a network: damaged or missing weights, small files, links and notes."""
    sound = root / "hub" / "sound"
    place = root / "hub" / "place"
    shutil.copytree(_hub_cache(root / "hub" / "published", sound), place, symlinks=True)
    right = _cached_answer(place)
    rng = random.Random(seed)
    repository = sound / f"models--{PUBLISHED.replace('/', '--')}"
    files = [path.relative_to(sound) for path in sorted(repository.rglob("*")) if not path.is_dir()]
    for file in files:
        named = (PUBLISHED, file.name, "tokenizer in", "safetensors", "config.json", COMMIT)

        def read(damage, file=file):
            shutil.rmtree(place)
            shutil.copytree(sound, place, symlinks=True)
            damage(place / file)
            return _cached_answer(place)

        yield Case(f"{file} removed", partial(read, Path.unlink), right, named)
        yield Case(f"{file} a folder", partial(read, _make_folder), right, named)
        if not (sound / file).is_symlink():
            data = (sound / file).read_bytes()
            is_large = len(file.name) == 64  # the name is the digest of what it holds
            for done, bad in spoiled_bytes(data, rng, flips=40 * is_large, cuts=10):
                if is_large or "more" not in done:  # a blank behind JSON changes nothing
                    damage = partial(_write, data=bad)
                    yield Case(f"{file}, {done}", partial(read, damage), right, named)


def _hub_cache(published: Path, cache: Path) -> Path:
    """Write a repository as the hub's client keeps it: blobs, links to them, and which commit is `main`."""
    write(CASES["a2d qwen2"], published)
    repository = cache / f"models--{PUBLISHED.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for file in published.iterdir():
        kind = "sha256" if file.suffix == ".safetensors" else "sha1"
        blob = hashlib.new(kind, file.read_bytes()).hexdigest()
        shutil.copyfile(file, repository / "blobs" / blob)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob)
    return cache


def _cached_answer(cache: Path) -> tuple:
    from huggingface_hub import constants

    former = constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE
    constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = str(cache), True
    try:
        return answer(PUBLISHED)
    finally:
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = former


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


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


GROUPS = {  # by the name that the table has: the cases, and each so many-th of them that the short run takes
    "weights": (weights, 60),
    "cards of saved models": (cards, 6),
    "configurations": (configurations, 400),
    "indices and shards": (indices, 30),
    "tokenizers": (tokenizers, 40),
    "the hub's cache": (hub_caches, 15),
    "adapters": (adapters, 60),
}
