"""The commands that hostile cases run, and what has to come out of them."""

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from hostile import notebook
from hostile.processes import KILLED, Outcome, Server, Trouble
from hostile.tally import BROKE, HELD, REFUSED, is_one_sentence
from random_models.cases import CASES
from random_models.writing import write

TEXT = "\n\n".join(
    " ".join(f"word{20 + (7 * line + 3 * word) % 50}" for word in range(30)) for line in range(20)
)
LEARN = "\n\n".join(
    " ".join(f"word{20 + (11 * line + 5 * word) % 50}" for word in range(line)) for line in range(12, 60)
)  # paragraphs of 12 to 59 words: their numbers decide which of them are held out
WAYS = {
    "sequential": ("--preset", "wanda"),
    "gram": ("--preset", "sparsegpt", "--set", "block_size=16"),
    "dense": ("--preset", "unstable", "--set", "noise_levels=2"),
    "dense gram": ("--preset", "sparsegpt", "--set", "propagation=dense", "--set", "block_size=16"),
    "owl": ("--preset", "wanda", "--set", "allocation=owl", "--set", "owl_m=2"),
    "global": ("--preset", "wanda", "--set", "propagation=dense", "--pattern", "global"),
    "structured": ("--preset", "structured", "--sparsity", "0.5"),
}
STREAMED = {f"{name}, streamed": (*flags, "--stream") for name, flags in WAYS.items() if name != "structured"}
ALL_WAYS = WAYS | STREAMED
OTHERS = {
    "trace": "trace llada --text text.txt --sequences 2 --prompt 6 --tokens 8 --steps 4 --out out",
    "evaluate": "evaluate llada --text text.txt --sequences 4 --length 12 --draws 2 --json out",
    "compare": "compare llada llada --text text.txt --sequences 4 --length 12 --draws 2 --json out",
    "train": "train base --text learn.txt --tokens 64 --lengths 8 --batch-tokens 16 --rank 2 --mask-token 71 "
    "--folder run --export out",
}  # command lines besides `prune`
STUDY = f"{notebook.NAME}.py"
NOTEBOOKS = {"notebook": f"notebook {STUDY}"}  # no command of `sinkprune`: cells, run in a process
OWN = (
    "llada",
    "base",
    "text.txt",
    "learn.txt",
    STUDY,
    "out",
    "run",
    "runs",
)  # what a folder holds in the end
RUN = ("checkpoint", "data.safetensors", "log.jsonl", "training.json")  # and its run of training
CHANGING = ("seconds", "tokens_per_second")  # of a card and of a log: another number in every run


class Bench:
    """A tiny model with a text, servers that run commands, and what straight runs make."""

    def __init__(self, root: Path, servers: int):
        self.root = root
        self.servers = [Server() for _ in range(servers)]
        self.free = list(self.servers)
        self.pool = ThreadPoolExecutor(servers)
        self.known: dict[str, tuple[dict, int]] = {}
        self.numbered = 0
        write(CASES["llada"], root / "llada")
        write(CASES["llama"], root / "base")

    def close(self) -> None:
        """End the servers."""
        self.pool.shutdown()
        for server in self.servers:
            server.close()

    @contextmanager
    def server(self):
        """A server that nobody else uses meanwhile."""
        server = self.free.pop()
        try:
            yield server
        finally:
            self.free.append(server)

    @contextmanager
    def folder(self):
        """A new folder with the model and its text, removed at the end."""
        self.numbered += 1
        folder = self.root / f"case-{self.numbered}"
        self.fill(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def fill(self, folder: Path) -> None:
        """Put the model and its text into a folder."""
        folder.mkdir(exist_ok=True)
        for name in ("llada", "base"):
            shutil.copytree(self.root / name, folder / name)
        (folder / "text.txt").write_text(TEXT)
        (folder / "learn.txt").write_text(LEARN)
        (folder / STUDY).write_text(notebook.SOURCE)

    def straight(self, way: str) -> tuple[dict, int]:
        """Return what a run without trouble makes, and how many file events it has."""
        if way not in self.known:
            with self.server() as server, self.folder() as folder:
                outcome = server.run(folder, command(way))
                assert outcome.status == 0, outcome.said
                assert left_over(folder) == []
                self.known[way] = made(folder), outcome.events
                assert self.known[way][0], f"{way} has made nothing that a kill could damage"
        return self.known[way]


def command(way: str, *more: object) -> list[object]:
    """Return the command line of a way; what `more` states again, with a value, takes the former's place."""
    line = (OTHERS | NOTEBOOKS).get(way)
    if line is not None:
        return [*line.split(), *more]

    text = ["--text", "text.txt", "--sequences", "6", "--length", "12", "--dtype", "float32"]
    arguments = ["prune", "llada", *text, *ALL_WAYS[way], "--out", "out"]
    for option in more:
        if option in arguments and option != "--set":
            place = arguments.index(option)
            del arguments[place : place + 2]
    return [*arguments, *more]


def made(folder: Path) -> dict[str, object]:
    """Return the contents of the output of a command, and of the results of a notebook."""
    return contents(folder / "out") | contents(folder / "runs")


def contents(path: Path) -> dict[str, object]:
    """Return the digests of a file, or of all files of a folder, by name.

    Cards and logs come as values, without what changes.
    """
    if path.is_file():
        return {path.name: _digest(path)}
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    found: dict[str, object] = {str(file.relative_to(path)): _digest(file) for file in files}
    for file in files:
        with suppress(ValueError):  # the digest of a broken one stays
            if file.name == "sinkprune.json":
                found[file.name] = _lasting(json.loads(file.read_text()))
            elif file.suffix == ".jsonl":
                found[file.name] = [_lasting(json.loads(line)) for line in file.read_text().splitlines()]
    return found


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _lasting(values: dict) -> dict:
    return {name: value for name, value in values.items() if name not in CHANGING}


def left_over(folder: Path) -> list[str]:
    """Return what a folder holds besides model, text and output."""
    others = [path for path in folder.iterdir() if path.name not in OWN]
    if (folder / "run").is_dir():
        others += [path for path in (folder / "run").iterdir() if path.name not in RUN]
    return sorted(path.name for path in others)


def moments(events: int, count: int, first: int) -> list[int]:
    """Return `count` numbers of events, evenly spread over all `events`; another `first` gives others."""
    step = max(1, events // count)
    return list(range(1 + first % step, events + 1, step))


def half_output(folder: Path, expected: dict) -> str:
    """Return what is wrong with the output of a run that did not end well: there is none, or it is whole.

    Of a notebook's results every file is there or not, and each is whole.
    """
    out = folder / "out"
    if out.exists() and contents(out) != expected:
        return "it left an output that is not whole"
    for name, content in contents(folder / "runs").items():
        is_scratch = any(part.startswith(".") for part in Path(name).parts)
        if not is_scratch and content != expected.get(name):
            return f"it left {name}, which is not whole"
    return ""


def ends_well(
    server: Server, folder: Path, way: str, expected: dict, is_flushed: bool = True, seen: Path | None = None
) -> tuple[str, str]:
    """Run the same command again: return whether it came to the same bits, and what went wrong.

    `seen` is where the folder lies for this process, if elsewhere.
    """
    again = server.run(folder, command(way), Trouble(is_flushed=is_flushed))
    folder = seen or folder
    if again.status == 0:
        if made(folder) != expected:
            return BROKE, "another result"
        if left_over(folder):
            return BROKE, f"it left {left_over(folder)}"
        return HELD, ""
    if is_one_sentence(again.said):
        is_there = way in OTHERS and " exists: " in again.said and contents(folder / "out") == expected
        return (HELD if is_there else REFUSED), ""
    return BROKE, f"status {again.status}: {again.said[-300:]}"


def was_killed(outcome: Outcome) -> bool:
    """Return whether a command ended by what was done to it."""
    return outcome.status == KILLED or outcome.status < 0
