"""`sinkprune reproduce`: run the notebooks as a graph of papermill commands, and print the paper's claims."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sinkprune_companion import project_root

LOOK_EVERY = 2.0  # seconds between two looks at what runs
SAY_EVERY = 60.0  # seconds between two lines where there is no terminal
STOP_WITHIN = 10.0  # seconds before what does not end by itself is killed
ANEW = "\r\033[K"  # what is written next takes the place of a line of a terminal
TAIL = 12  # lines of the log that are shown where no notebook failed


def reproduce(
    *,
    profile: Annotated[
        str, Parameter(help="a file of workflow/config without its ending", metavar="NAME")
    ] = "quick",
    on: Annotated[
        str,
        Parameter(
            help="a folder of workflow/profiles: local (one machine) or slurm (a cluster; needs the extra "
            "`slurm`)",
            metavar="PLACE",
        ),
    ] = "local",
    dry_run: Annotated[bool, Parameter(help="say what would run, and why; write nothing")] = False,
    with_records: Annotated[
        bool,
        Parameter(
            help="begin with the records that the project keeps of this profile, so that figures are drawn "
            "without measuring; what another revision of a measurement made is measured anew"
        ),
    ] = False,
) -> int:
    """Run the notebooks and print the paper's claims with their verdicts."""
    from sinkprune_companion.run.profiles import lock_of_all_runs, run_folder, unpack

    root = project_root()
    command = snakemake_command(root, profile, on)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {"PYTHONWARNINGS": "ignore", **os.environ, "PATH": path}
    if dry_run:
        return subprocess.run([*command, "--dry-run", "--nolock"], env=environment).returncode

    with lock_of_all_runs() as lock:
        if with_records:
            print(f"{unpack(profile)} files of records put into runs/{profile}")
        if any((root / ".snakemake" / "locks").glob("*")):  # a killed run leaves its locks behind
            subprocess.run([*command, "--unlock"], env=environment, capture_output=True)

        log = root / "runs" / "reproduce.log"
        began = time.time()

        with log.open("w", encoding="utf-8") as stream, ended_by_sigterm():
            process = subprocess.Popen(
                command, env=environment, pass_fds=[lock], stdout=stream, stderr=subprocess.STDOUT
            )

            try:
                show_progress(process, profile, began)
            except BaseException as stopped:
                stop(process)
                stopped.add_note(
                    f"finished notebooks and records are kept in runs/{profile}, "
                    "and the same command goes on from here"
                )
                raise

    if process.returncode == 0:
        from sinkprune_companion.cli.claims import print_claims  # pandas, which need not wait in memory

        print_claims(profile, "claim")
        return 0

    said = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    end = (
        "error: not everything ran; finished notebooks and records are kept, and the same command goes "
        f"on from here (its log: runs/{log.name})"
    )
    print(*(failures(run_folder(profile), began) or said[-TAIL:]), end, sep="\n", file=sys.stderr)

    return process.returncode


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a block as Ctrl-C does, so that what it started is stopped, too."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show_progress(process: subprocess.Popen, profile: str, began: float) -> None:
    """Show what a run is doing until it ends: on one line of a terminal, else a line a minute."""
    from sinkprune_companion.run import profiles

    jobs = profiles.jobs_by_notebook(profile)
    is_terminal = sys.stderr.isatty()

    before, after, pause = (ANEW, "", LOOK_EVERY) if is_terminal else ("", "\n", SAY_EVERY)
    while process.poll() is None:
        line = profiles.progress(profiles.run_folder(profile), began, jobs)
        if is_terminal:
            line = line[: shutil.get_terminal_size().columns - 1]
        print(f"{before}{line}", end=after, file=sys.stderr, flush=True)
        with suppress(subprocess.TimeoutExpired):
            process.wait(pause)

    print(before, end="", file=sys.stderr, flush=True)


def stop(process: subprocess.Popen) -> None:
    """End a process and all that it started; what they have written stays whole."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        tree = [*parent.children(recursive=True), parent]
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for member in tree:
                with suppress(psutil.NoSuchProcess):
                    end(member)
            _, tree = psutil.wait_procs(tree, STOP_WITHIN)

    process.wait()


def snakemake_command(root: Path, profile: str, on: str) -> list[str]:
    """Return the command that runs the graph of a profile at a place.

    Raises ValueError for a profile or a place that `root` does not have.
    """
    from sinkprune.memory import free_memory
    from sinkprune_companion.run.profiles import jobs_by_notebook

    workflow = root / "workflow"
    if not workflow.is_dir():
        raise ValueError(f"there is no workflow in {root}: run this in a clone of the repository")

    jobs_by_notebook(profile)  # it knows the profiles
    places = sorted(file.parent.name for file in (workflow / "profiles").glob("*/config.yaml"))
    if on not in places:
        raise ValueError(f"--on {on}: choose one of {', '.join(places)}")
    if on == "slurm" and find_spec("snakemake_executor_plugin_slurm") is None:
        raise ValueError("--on slurm needs snakemake-executor-plugin-slurm: pip install 'sinkprune[slurm]'")

    command = [sys.executable, "-m", "snakemake"]
    command += ["--snakefile", str(workflow / "Snakefile"), "--directory", str(root)]
    command += ["--workflow-profile", str(workflow / "profiles" / on)]
    command += ["--configfile", str(workflow / "config" / f"{profile}.yml")]
    if on == "local":  # jobs share a machine as far as its memory goes
        command += ["--resources", f"mem_mb={free_memory() >> 20}"]

    return command


def failures(folder: Path, began: float) -> list[str]:
    """Return one line per error in the notebooks that a run has executed, and per kernel that was killed."""
    import nbformat

    from sinkprune_companion.run import profiles

    lines = []
    for file, label in profiles.notebook_files(folder).items():
        try:
            if file.stat().st_mtime < began:
                continue
            cells = nbformat.read(file, 4).cells
        except (FileNotFoundError, ValueError, nbformat.reader.NotJSONError):
            continue  # the job failed before papermill wrote anything

        code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
        outputs = [output for cell in code for output in cell.outputs]
        said = [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]
        answered = sum("shell.execute_reply" in cell.metadata.get("execution", {}) for cell in code)
        if not said and answered < len(code):
            place = f"its kernel was killed in code cell {answered + 1} of {len(code)}"
            said = [f"{place}, as the system does where memory runs out"]

        where = f"{file.stem}, cell {label}" if label else file.stem
        lines += [f"error in {where}: {words}" for words in said]

    return lines
