"""The commands that are killed, run out of disk or meet another process, and what has to come out of them."""

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

from hostile.processes import run
from random_models.cases import CASES
from random_models.texts import LEARN, TEXT
from random_models.writing import write

DRAWN = "--text text.txt --sequences 6 --length 12 --dtype float32"
PRUNING = {
    "sequential": f"prune llada {DRAWN} --preset wanda --out out",
    "dense": f"prune llada {DRAWN} --preset unstable --set noise_levels=2 --out out",
    "sequential, streamed": f"prune llada {DRAWN} --preset wanda --stream --out out",
    "dense, streamed": f"prune llada {DRAWN} --preset unstable --set noise_levels=2 --stream --out out",
    "structured": f"prune llada {DRAWN} --preset structured --sparsity 0.5 --out out",
}
COMMANDS = PRUNING | {
    "trace": "trace llada --text text.txt --sequences 2 --prompt 6 --tokens 8 --steps 4 --out out",
    "evaluate": "evaluate llada --text text.txt --sequences 4 --length 12 --draws 2 --json out",
    "train": "train base --text learn.txt --tokens 64 --lengths 8 --batch-tokens 16 --rank 2 --mask-token 71 "
    "--folder run --export out",
    "notebook": "notebook study",
}
OWN = {"llada", "base", "text.txt", "learn.txt", "study.py", "out", "run", "runs"}  # in the folder at the end
RUN = {"checkpoint", "data.safetensors", "training.json"}  # in the folder of a training
CHANGING = ("seconds",)  # of a card: another number in every run


def fill(folder: Path) -> Path:
    """Put what the commands read into a new folder: two models, their texts, and a notebook."""
    folder.mkdir()
    write(CASES["llada"], folder / "llada")
    write(CASES["llama"], folder / "base")
    (folder / "text.txt").write_text(TEXT)
    (folder / "learn.txt").write_text(LEARN)
    shutil.copy(Path(__file__).with_name("study.py"), folder)
    return folder


def command(way: str, *more: object) -> list[str]:
    """Return a command line; an option that `more` states again, with a value, takes the former's place."""
    arguments = COMMANDS[way].split()
    for option in more:
        if option in arguments:
            place = arguments.index(option)
            del arguments[place : place + 2]
    return [*arguments, *map(str, more)]


def straight(way: str, folder: Path) -> tuple[dict[str, object], int]:
    """Return what a command without trouble makes, and how many file events it has."""
    fill(folder)
    outcome = run(folder, command(way))
    assert outcome.status == 0, outcome.said
    assert left_over(folder) == set()
    assert made(folder)
    return made(folder), outcome.events


def moments(events: int, count: int) -> list[int]:
    """Return `count` numbers of events, evenly spread over all of them."""
    return [1 + (2 * index + 1) * events // (2 * count) for index in range(count)]


def assert_nothing_is_half(way: str, folder: Path, expected: dict[str, object]) -> None:
    """Assert that a command that was stopped has left no output, or a whole one.

    Of a notebook's results each is there or not, and each is whole.
    """
    found = made(folder)
    if way == "notebook":
        assert found.items() <= expected.items()
    else:
        assert found in ({}, expected)


def assert_it_goes_on(way: str, folder: Path, expected: dict[str, object]) -> None:
    """Assert that the same command comes to the same bits, and leaves nothing else."""
    again = run(folder, command(way))
    if again.status != 0:  # the command was stopped behind its last step
        assert again.is_refused and " exists: " in again.said, again.said
    else:
        assert left_over(folder) == set()

    assert made(folder) == expected


def made(folder: Path) -> dict[str, object]:
    """Return the contents of a command's output, and of a notebook's results but for scratch files."""
    return contents(folder / "out") | contents(folder / "runs")


def contents(path: Path) -> dict[str, object]:
    """Return the digests of a file, or of all files of a folder but for hidden ones, by name.

    Cards and logs come as values, without what changes; a damaged one as its digest.
    """
    if path.is_file():
        return {path.name: _digest(path)}

    found: dict[str, object] = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if not file.is_file() or any(part.startswith(".") for part in name.parts):
            continue

        found[str(name)] = _digest(file)
        with suppress(ValueError):
            if file.name == "sinkprune.json":
                found[str(name)] = _lasting(json.loads(file.read_text()))
            elif file.suffix == ".jsonl":
                found[str(name)] = [json.loads(line) for line in file.read_text().splitlines()]
    return found


def left_over(folder: Path) -> set[str]:
    """Return the names in a folder, and in its run of training, that are no input and no result."""
    in_run = {path.name for path in (folder / "run").glob("*")}
    return ({path.name for path in folder.iterdir()} - OWN) | (in_run - RUN)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _lasting(values: dict) -> dict:
    return {name: value for name, value in values.items() if name not in CHANGING}
