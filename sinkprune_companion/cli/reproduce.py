"""`sinkprune reproduce`: run the notebooks as a graph of papermill commands, and print the claims table."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sinkprune_companion.cli.claims import print_claims
from sinkprune_companion.cli.options import Options, suggestion
from sinkprune_core.files import project_root

SUMMARY = "run the notebooks in order and print the claims table"


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(Options):
    """The options of `sinkprune reproduce`."""

    profile: str = "quick"
    on: str = "local"
    dry_run: bool = False
    with_records: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ReproduceOptions`."""
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help=f"a file of workflow/config without its ending (default: {ReproduceOptions.profile})",
    )
    parser.add_argument(
        "--on",
        metavar="PLACE",
        help="a folder of workflow/profiles: local (one machine, default) or slurm "
        "(a cluster; needs the extra `slurm`)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and why")
    parser.add_argument(
        "--with-records",
        action="store_true",
        help="begin with the records that the project keeps of this profile, so that figures are drawn "
        "without measuring; what other code or versions made is measured anew",
    )


def run(options: ReproduceOptions) -> int:
    """Run what is not up to date, then print the claims, or which notebooks failed and how."""
    root = project_root()
    check_workflow(root, options)
    if options.with_records:
        from sinkprune_companion.run.record_archive import unpack

        print(f"{unpack(options.profile)} files of records put into runs/{options.profile}")
    command = snakemake_command(root, options)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore"),
    }
    runs = root / "runs"
    runs.mkdir(exist_ok=True)
    with held(runs / ".lock") as lock:
        if options.dry_run:
            return subprocess.run([*command, "--dry-run"], env=environment).returncode
        if any((root / ".snakemake" / "locks").glob("*")):  # a killed run leaves its locks behind
            subprocess.run([*command, "--unlock"], env=environment, capture_output=True)
        status = subprocess.run(command, env=environment, pass_fds=[lock]).returncode
    if status:
        for line in failures(runs / options.profile):
            print(line, file=sys.stderr)
        print(
            "error: not everything ran; finished notebooks and records are kept, "
            "and the same command goes on from here",
            file=sys.stderr,
        )
        return status
    print_claims(options.profile)
    return 0


@contextmanager
def held(file: Path) -> Iterator[int]:
    """Hold the lock of all runs, and yield its descriptor.

    A process that inherits the descriptor holds the lock too: notebooks that run on after this process was
    killed are not joined by others. Raises RuntimeError where another run holds it.
    """
    import fcntl

    with file.open("a") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                "another `sinkprune reproduce` is running here: wait for it or stop it"
            ) from None
        yield opened.fileno()


def kept(options: ReproduceOptions) -> str:
    """Return what an interrupted run leaves."""
    return (
        f"finished notebooks and records are kept in runs/{options.profile}, "
        "and the same command goes on from here"
    )


def check_workflow(root: Path, options: ReproduceOptions) -> None:
    """Raise ValueError for a profile or a place that `root` does not have."""
    profiles = sorted(file.stem for file in (root / "workflow" / "config").glob("*.yml"))
    if not profiles:
        raise ValueError(f"there is no workflow in {root}: run this in a clone of the repository")
    if options.profile not in profiles:
        near = suggestion(options.profile, profiles)
        raise ValueError(
            f"profile {options.profile!r} is unknown{near or ';'} choose one of {', '.join(profiles)}"
        )
    places = sorted(file.parent.name for file in (root / "workflow" / "profiles").glob("*/config.yaml"))
    if options.on not in places:
        raise ValueError(f"--on {options.on}: choose one of {', '.join(places)}")
    if options.on == "slurm" and find_spec("snakemake_executor_plugin_slurm") is None:
        raise ValueError("--on slurm needs snakemake-executor-plugin-slurm: pip install 'sinkprune[slurm]'")


def snakemake_command(root: Path, options: ReproduceOptions) -> list[str]:
    """Return the command that runs the graph of a profile at a place."""
    from sinkprune_core.memory import free_memory

    workflow = root / "workflow"
    command = [sys.executable, "-m", "snakemake"]
    command += ["--snakefile", str(workflow / "Snakefile"), "--directory", str(root)]
    command += ["--workflow-profile", str(workflow / "profiles" / options.on)]
    command += ["--configfile", str(workflow / "config" / f"{options.profile}.yml")]
    if options.on == "local":  # jobs share a machine as far as its memory goes
        command += ["--resources", f"mem_mb={free_memory() >> 20}"]
    return command


def failures(folder: Path) -> list[str]:
    """Return one line per error in the executed notebooks of a run, and per kernel that was killed.

    The cells of sweeps are notebooks too.
    """
    import nbformat

    lines = []
    for file in [*sorted(folder.glob("notebooks/*.ipynb")), *sorted(folder.glob("cells/*/*/*.ipynb"))]:
        where = file.stem
        if file.parent.name != "notebooks":
            where += f", cell {file.parent.name}"
        try:
            cells = nbformat.read(file, 4).cells
        except (ValueError, nbformat.reader.NotJSONError):  # the job failed before papermill wrote anything
            continue
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        errors = [output for output in outputs if output.output_type == "error"]
        lines += [f"error in {where}: {error.ename}: {error.evalue}" for error in errors]
        code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
        answered = [cell for cell in code if "shell.execute_reply" in cell.metadata.get("execution", {})]
        if not errors and len(answered) < len(code):
            cell = len(answered) + 1
            lines.append(
                f"error in {where}: its kernel was killed in code cell {cell} of {len(code)}, "
                "as the system does where memory runs out"
            )
    return lines
