"""`sinkprune reproduce` on a small project of two notebooks: order, second runs, kills and failures."""

import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals and shell of POSIX")]

NOTEBOOK = """
# %% tags=["parameters"]
profile: str = "manual"  # where
size: int = 1  # a number
pause: float = 0.0  # seconds before the second record
seeds: int = 1  # draws
first_seed: int = 0  # number of the first draw
# %%
import time
import pandas as pd
from tqdm.auto import tqdm
from sinkprune_companion.experiments.parameters import start
from sinkprune.evaluation.intervals import interval
run = start("NAME", globals())
# %%
first = run.record("first", lambda: pd.DataFrame({"x": [time.time()]}), size=size)
time.sleep(pause)
second = run.record("second", lambda: pd.DataFrame({"x": [1.0 / (size - 13), 2.0]}), size=size)
drawn = pd.concat(
    [
        run.record("draw", lambda: pd.DataFrame({"x": [seed + time.time()]}), seed=seed, of="NAME")
        for seed in tqdm(range(first_seed, first_seed + seeds), desc="draws")
    ]
)
run.find({"mean": interval(second.x)})
"""
NOTEBOOKS = ("00_one", "01_two")
PROFILE = "full"  # the name of a published profile: its notebooks take what others found and was published
CLAIM = {"id": "c", "kind": "claim", "says": "the mean is above zero", "metric": "m"}
CLAIM |= {"finding": "00_one/mean", "side": "above", "against": -50.0, "family": "means", "margin": 0.1}
WORDING = (
    "figures/findings/99_other.json",
    "sinkprune_companion/pages/figures.yml",
    "sinkprune_companion/pages/answers/00_one.md.j2",
    "sinkprune_companion/pages/readings/00_one.md.j2",
    "sinkprune_companion/pages/readme.md.j2",
    "sinkprune_companion/pages/titles.yml",
)


@pytest.fixture
def project(tmp_path) -> Path:
    """A clone in small: the real package, Snakefile and profile, two tiny notebooks."""
    for package in ("sinkprune_core", "sinkprune", "sinkprune_companion"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")

    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    for name in NOTEBOOKS:
        (tmp_path / "notebooks" / f"{name}.py").write_text(NOTEBOOK.replace("NAME", name))

    (tmp_path / "sinkprune_companion" / "data" / "claims.yml").write_text(yaml.safe_dump({"claims": [CLAIM]}))

    published = tmp_path / "figures" / "findings" / "99_other.json"
    published.parent.mkdir(parents=True)
    published.write_text(json.dumps({"findings": {}}))

    configure(tmp_path)
    return tmp_path


def configure(project: Path, one: dict | None = None, two: dict | None = None, **more: dict) -> None:
    for config in (project / "workflow" / "config").glob("*.yml"):
        config.unlink()
    notebooks = {"00_one": one or {"size": 2}, "01_two": two or {"size": 3}}
    stated = yaml.safe_dump({"profile": PROFILE, "notebooks": notebooks, **more})
    (project / "workflow" / "config" / f"{PROFILE}.yml").write_text(stated)


def command(project: Path, *arguments: str) -> dict:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(project), "PATH": path}
    started = [sys.executable, "-m", "sinkprune.cli.main", *arguments]
    return {"args": started, "cwd": project, "env": environment, "text": True}


def reproduce(project: Path, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        **command(project, "reproduce", "--profile", PROFILE, *more), capture_output=True, timeout=900
    )


def planned_jobs(said: str) -> int:
    """Return how many jobs a dry run plans."""
    (total,) = {line.split()[1] for line in said.splitlines() if line.startswith("total ")}
    return int(total)


def stamps(run: Path) -> dict[str, int]:
    """Return when each file of findings and records was last written, by its name in the run."""
    return {
        path.relative_to(run).as_posix(): path.stat().st_mtime_ns
        for path in run.rglob("*")
        if path.suffix in (".csv", ".json") and path.parent.name != "figures"
    }


def makers(run: Path) -> dict[int, str]:
    """Return which job computed each draw of the notebook that is shared out."""
    records = [json.loads(path.read_text()) for path in run.glob("records/draw/*.json")]
    return {record["key"]["seed"]: record["profile"] for record in records if record["key"]["of"] == "01_two"}


def written(project: Path, notebook: str, record: str) -> float:
    """Return when a record of a run was written."""
    abouts = (project / "runs" / PROFILE / "records" / record).glob("*.json")
    (about,) = (file for file in abouts if json.loads(file.read_text())["notebook"] == notebook)
    return about.stat().st_mtime


def test_a_run_ends_with_the_claims_and_goes_on_only_where_code_or_a_parameter_changes(project):
    """One notebook is shared out among the cells of a sweep; each job asks for all memory, so runs alone.

    Findings that other runs published are no reason to run again: that would be a circle.
    """
    one = {"size": 2, "pause": 1.0}
    needs = {"threads": 1, "mem_mb": 10**8}
    share = {"resources": {"00_one": needs, "01_two": needs}}
    sweep = {"01_two": {"first_seed": [0, 1], "seeds": [1]}}
    configure(project, one, {"size": 3, "seeds": 2}, sweep=sweep, **share)
    for name in WORDING:
        (project / name).touch()

    run = project / "runs" / PROFILE
    done = reproduce(project)
    assert done.returncode == 0, done.stderr
    assert written(project, "01_two", "first") > written(project, "00_one", "second")
    assert "reproduced" in done.stdout and "the mean is above zero" in done.stdout
    assert f"runs/{PROFILE}/figures" in done.stdout
    for suffix in ("csv", "json", "md"):
        assert (run / "figures" / f"claims.{suffix}").exists()
    assert makers(run) == {0: f"{PROFILE}@first_seed-0", 1: f"{PROFILE}@first_seed-1"}
    cells = {path.parent.parent.name for path in run.glob("cells/01_two/*/findings/01_two.json")}
    assert cells == {"first_seed-0", "first_seed-1"}
    executed = list(run.glob("cells/01_two/*/01_two.ipynb"))
    assert len(executed) == 2, "the executed notebook of every cell is kept"
    provenance = json.loads((run / "findings" / "01_two.json").read_text())["provenance"]
    assert provenance["parameters"]["seeds"] == 2
    assert all(group["versions"]["torch"] and group["names"] for group in provenance["records"])
    claims = json.loads((run / "figures" / "claims.json").read_text())
    named = {name.rpartition("/")[0] for group in claims["records"] for name in group["names"]}
    assert named == {f"{notebook}/{name}" for notebook in NOTEBOOKS for name in ("first", "second", "draw")}
    before = stamps(run)

    outputs = [
        output
        for notebook in [*executed, *(run / "notebooks").glob("*.ipynb")]
        for cell in json.loads(notebook.read_text())["cells"]
        for output in cell.get("outputs", [])
    ]
    assert outputs and not [output for output in outputs if "draws:" in json.dumps(output)], "a progress bar"

    # words of pages and notebooks change no result, nor do published findings, which follow from a run
    for name in WORDING:
        file = project / name
        file.write_text(file.read_text() + "\n")
    source = project / "notebooks" / "01_two.py"
    code = source.read_text()
    source.write_text(f'# %% [markdown] tags=["answer"]\n# It is so.\n\n{code}')

    again = reproduce(project)
    assert again.returncode == 0 and "Nothing to be done" in (run.parent / "reproduce.log").read_text()
    assert stamps(run) == before

    source.write_text(code.replace("2.0]", "2.5]"))
    changed = reproduce(project, "--dry-run")
    assert planned_jobs(changed.stdout + changed.stderr) == 5, "both cells, their notebook, claims, target"
    source.write_text(code)

    sweep["01_two"]["first_seed"].append(2)
    configure(project, one, {"size": 3, "seeds": 3}, sweep=sweep, **share)
    planned = reproduce(project, "--dry-run")
    text = planned.stdout + planned.stderr
    assert "cell first_seed-2" in text
    assert planned_jobs(text) == 4, "the new cell, its notebook, the claims and the target"

    package = project / "sinkprune_core" / "seeds.py"
    package.write_text(package.read_text() + "\n")
    planned = reproduce(project, "--dry-run")
    jobs = planned_jobs(planned.stdout + planned.stderr)
    assert jobs == 7, "both notebooks, three cells, the claims and the target: code of the package changed"


def test_a_sweep_that_makes_no_sense_is_refused_before_any_work(project):
    configure(project, sweep={"09_none": {"size": [1]}})
    refused = reproduce(project)
    assert refused.returncode != 0
    assert "sweep or resources name 09_none" in refused.stderr + refused.stdout
    assert not (project / "runs" / PROFILE).exists()


def begun(project: Path, **streams: object) -> subprocess.Popen:
    """Start a run in a session of its own, and return it when its first notebook has written a record."""
    configure(project, one={"size": 2, "pause": 120.0})

    process = subprocess.Popen(
        **command(project, "reproduce", "--profile", PROFILE),
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # which a background job ignores
        **streams,
    )

    deadline = time.time() + 600
    records = project / "runs" / PROFILE / "records"
    while not list(records.glob("first/*.csv")) and time.time() < deadline:  # not in the folders of scratch
        time.sleep(0.2)

    return process


def test_an_interrupted_run_says_how_to_go_on_and_nothing_else(project):
    """As a terminal does it: everything that runs gets the signal."""
    process = begun(project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 130 and not output
    progress, last = errors.splitlines()[:-1], errors.splitlines()[-1]
    assert last == (
        f"interrupted: finished notebooks and records are kept in runs/{PROFILE}, "
        "and the same command goes on from here"
    )

    assert all("of 2 jobs finished" in line for line in progress)

    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no process is left


def test_a_run_that_is_asked_to_end_leaves_no_process_behind_and_goes_on(project):
    """SIGTERM reaches the command alone, as `kill` and a scheduler send it."""
    process = begun(project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = psutil.Process(process.pid).children(recursive=True)
    assert started

    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive

    configure(project, one={"size": 2})
    again = reproduce(project, "--dry-run")
    assert again.returncode == 0 and planned_jobs(again.stdout + again.stderr) == 4


def test_a_killed_run_goes_on_from_its_records_and_a_failure_names_its_notebook_and_keeps_the_rest(project):
    process = begun(project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    records = project / "runs" / PROFILE / "records"
    (kept,) = records.glob("first/*.csv")
    text, stamp = kept.read_text(), kept.stat().st_mtime_ns
    assert not list(records.glob("second/*.csv"))

    configure(project, one={"size": 2}, two={"size": 13})  # the pause is no part of a record's key
    failed = reproduce(project)
    assert failed.returncode != 0
    assert "error in 01_two: ZeroDivisionError" in failed.stderr
    assert "goes on from here" in failed.stderr
    assert (project / "runs" / PROFILE / "notebooks" / "01_two.ipynb").exists()
    assert (project / "runs" / PROFILE / "findings" / "00_one.json").exists()
    assert (kept.read_text(), kept.stat().st_mtime_ns) == (text, stamp)


# plans of the real notebooks and profiles

# several command lines in one process, since Snakemake takes longer to import than to plan
PLANS = """
import contextlib, io, json, sys
from snakemake.cli import main

for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(arguments)
            status = 0
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, said.getvalue()]))
"""


def plans(*asked: tuple[Path, str, str]) -> list[tuple[int, str]]:
    """Return how Snakemake ends and what it says, of each configuration, place and wish."""
    lines = [
        f"--workflow-profile workflow/profiles/{place} --nolock {wanted} --configfile {config}".split()
        for config, place, wanted in asked
    ]
    options = command(ROOT)
    options["args"] = [sys.executable, "-c", PLANS, json.dumps(lines)]
    planned = subprocess.run(**options, capture_output=True, timeout=600)
    assert planned.returncode == 0, planned.stderr[-2000:]
    return [tuple(json.loads(line)) for line in planned.stdout.splitlines()]


def config_of(profile: str) -> Path:
    return ROOT / "workflow" / "config" / f"{profile}.yml"


def expected_jobs(profile: str) -> int:
    """Return how many jobs a profile has: a notebook each, the cells, the claims table and the target."""
    stated = yaml.safe_load(config_of(profile).read_text())
    cells = sum(math.prod(map(len, grid.values())) for grid in stated.get("sweep", {}).values())
    return len(stated["notebooks"]) + cells + 2


def test_profiles_can_be_planned_here_and_on_a_cluster(tmp_path):
    """With a sweep and without: how many jobs, without running any."""
    places = [("full", "local"), ("quick", "local")]
    if importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        places.append(("full", "slurm"))

    stated = {"profile": "p", "notebooks": {"00_start_here": {}}, "sweep": {"00_start_here": {"seeds": 3}}}
    senseless = tmp_path / "senseless.yml"
    senseless.write_text(yaml.safe_dump(stated))

    forced = "--dry-run --forceall"
    asked = [(config_of(profile), place, forced) for profile, place in places]
    *planned, (refusal, refused) = plans(*asked, (senseless, "local", forced))

    for (profile, place), (status, text) in zip(places, planned, strict=True):
        assert status == 0 and planned_jobs(text) == expected_jobs(profile), (profile, place)
    assert refusal != 0 and "seeds=3 must be a list" in refused and "total" not in refused


def test_what_titles_take_is_declared():
    """Titles of a published profile take findings that others published; those of a quick one do not."""
    profiles = {"full": True, "quick": False}
    drawn = plans(*((config_of(profile), "local", "--filegraph") for profile in profiles))

    for takes_published, (status, text) in zip(profiles.values(), drawn, strict=True):
        assert status == 0
        rules = text.split("label=<")
        (of_03,) = [rule for rule in rules if ">notebook_03_leaving_sinks_out<" in rule]
        for taken in ("figures/findings/07_best_recipe.json", "sinkprune_companion/pages/titles.yml"):
            assert (taken in of_03) is takes_published
        assert ">figures/findings/03_leaving_sinks_out.json<" not in of_03, "its own are no input"
        assert "sinkprune_companion/pages/readme.md.j2" not in of_03
        assert "sinkprune_core/seeds.py" in of_03
