"""The first hour of a new user, command by command, in a clean clone with an empty home: docs/first_hour.md.

All of it, in the clone's own .venv, or some steps with the programs of another environment:

    python tools/first_hour.py
    python tools/first_hour.py --steps prune,compare --bin FOLDER

Every step keeps its command, its times and the last lines that it printed in docs/first_hour.json; a later
run of other steps replaces theirs alone. Steps use what those before them made.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from sinkprune_companion.numbers import markdown_table
from sinkprune_companion.run.provenance import environment
from sinkprune_core.files import write_json
from sinkprune_core.models.devices import choose_dtype

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "first_hour.json"
PAGE = ROOT / "docs" / "first_hour.md"
PICTURE = ROOT / "docs" / "first_hour_sinks.png"
MAKING = "reproduce"  # the step whose time has that of making .venv in it
LINES = 14  # of what a command prints that the page shows


@dataclass(frozen=True)
class Step:
    """One command, and the seconds that it may take on two cores."""

    name: str
    command: str
    at_most: int | None = None


STEPS = [
    Step("reproduce", "make reproduce PROFILE=quick"),
    Step("test", "make test"),
    Step("prune", "sinkprune prune smol-dlm --preset unstable --sparsity 0.5 --out smol-dlm-pruned", 60),
    Step("evaluate", "sinkprune evaluate smol-dlm-pruned --tasks suite", 300),
    Step("compare", "sinkprune compare smol-dlm smol-dlm-pruned"),
    Step("trace", "sinkprune trace smol-dlm-pruned --figure sinks.png"),
    Step("snippet", "python snippet.py  # README's Python"),
    Step("notebook", "papermill notebooks/00_start_here.ipynb out.ipynb -k python3"),
]


def last_lines(text: str, places: dict[str, str]) -> list[str]:
    """Return the last lines that a terminal shows, without bars and with folders called as in `places`."""
    for place, name in places.items():
        text = text.replace(place, name)
    lines = [line.rpartition("\r")[2].rstrip() for line in text.replace("\x1b[A", "").split("\n")]
    return [line for line in lines if line and not re.search(r"\d+%\|", line)][-LINES:]


def run(step: Step, clone: Path, home: Path, programs: Path) -> dict[str, object]:
    """Run one step; return its entry of docs/first_hour.json."""
    variables = {"HOME": str(home), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    passed_on = ("LANG", "LC_ALL", "TERM", "OMP_NUM_THREADS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    variables |= {
        name: os.environ[name] for name in os.environ if name in passed_on or name.startswith("PIP_")
    }
    if programs.parent.parent != clone:
        variables["PYTHONPATH"] = str(clone)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", step.command],
        cwd=clone,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    entry = {
        "command": step.command,
        "status": done.returncode,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[1], 1),
        "dtype": str(choose_dtype("auto")).removeprefix("torch."),
        "git_commit": environment()["git_commit"],
        "last_lines": last_lines(
            done.stdout, {str(clone): "~/sinkprune", str(home): "~", str(programs.parent): ".venv"}
        ),
    }
    print(f"{step.name}: {entry['seconds']} s, {entry['cpu_seconds']} s of CPU, status {done.returncode}")
    print("\n".join(f"    {line}" for line in entry["last_lines"]))
    return entry


def page(entries: dict[str, dict]) -> str:
    """Return docs/first_hour.md."""
    rows = []
    consoles = []
    for step in STEPS:
        entry = entries.get(step.name)
        goal = "–" if step.at_most is None else f"{step.at_most} s"
        if entry is None:
            rows.append([f"`{step.command}`", "not measured yet", "–", goal, "–", "–"])
            continue
        times = [f"{entry['seconds']:.0f} s", f"{entry['cpu_seconds']:.0f} s"]
        machine = [f"{entry['cores']}, load {entry['load']:g}", entry["dtype"]]
        rows.append([f"`{step.command}`", *times, goal, *machine])
        ending = "" if entry["status"] == 0 else f"\n[exit status {entry['status']}]"
        lines = "\n".join(entry["last_lines"])
        consoles.append(f"```console\n$ {entry['command']}\n{lines}{ending}\n```")
    head = ["command", "time", "CPU time", "at most, on 2 cores", "cores here", "dtype"]
    picture = f"\n![Attention sinks of the pruned model]({PICTURE.name})\n" if PICTURE.exists() else ""
    return f"""# The first hour

What a new user types in a clean clone with an empty home, how long it takes, and the last lines that it
prints. Written by `python tools/first_hour.py`. The load is that of the machine in the last five
minutes: above the number of cores, other work slowed the command down, and CPU time says more. Models are
computed in bfloat16 where the processor has units for it, and in float32 elsewhere, which takes several times
as long. The time of `make reproduce` has that of installation in it.

{markdown_table(head, rows)}

{(2 * chr(10)).join(consoles)}
{picture}"""


def main() -> int:
    """Run the steps that are named, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", default=",".join(step.name for step in STEPS), help="names, by commas")
    parser.add_argument(
        "--bin", type=Path, help="programs of an environment (default: the clone's own .venv)"
    )
    arguments = parser.parse_args()
    wanted = arguments.steps.split(",")
    entries = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        clone, home = Path(folder) / "sinkprune", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        readme = (clone / "README.md").read_text(encoding="utf-8")
        snippet = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
        if arguments.bin is None and MAKING not in wanted:
            subprocess.run(["make", "venv"], cwd=clone, stdout=subprocess.DEVNULL, check=True)
        for step in STEPS:
            if step.name in wanted:
                if step.name == "snippet":  # no sooner: the tests look at every file
                    (clone / "snippet.py").write_text(snippet, encoding="utf-8")
                entries[step.name] = run(step, clone, home, arguments.bin or clone / ".venv" / "bin")
                write_json(KEPT, entries)
                for picture in clone.glob("sinks.png"):
                    shutil.copyfile(picture, PICTURE)
                PAGE.write_text(page(entries), encoding="utf-8")
    return max((entries[name]["status"] for name in wanted), default=0)


if __name__ == "__main__":
    sys.exit(main())
