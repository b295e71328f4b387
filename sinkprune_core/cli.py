"""The command `sinkprune`: reproduce the paper's claims, print the ledger, publish a run, train the embedded adapter."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from .paths import cache_dir, project_root


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; an expected error is one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(prog="sinkprune", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    reproduce = commands.add_parser("reproduce", help="run the notebooks in order and print the claims table")
    reproduce.add_argument("--profile", default="quick", help="a file of workflow/config without its ending (default: quick)")
    reproduce.add_argument("--dry-run", action="store_true", help="say what would run, and why")
    reproduce.set_defaults(run=_reproduce)

    ledger = commands.add_parser("claims", help="print the claims table of a run")
    ledger.add_argument("--profile", default="quick")
    ledger.set_defaults(run=_claims)

    publish = commands.add_parser("publish", help="put a finished run into notebooks/, figures/ and README.md")
    publish.add_argument("--profile", default="full")
    publish.set_defaults(run=_publish)

    train = commands.add_parser("train", help="train the adapter that turns smol-ar into smol-dlm (or into its adapted twin), or go on training it")
    train.add_argument("--kind", choices=("diffusion", "autoregressive"), default="diffusion", help="what the base becomes: smol-dlm, or its autoregressive twin on the same data")
    train.add_argument("--tokens", type=int, help="training tokens in all (default: see sinkprune_core/training.py)")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--folder", type=Path, help="checkpoints and log (default: training/<kind> in the cache)")
    train.add_argument("--start-from", type=Path, help="an exported adapter to go on from, at its place in the data, instead of a fresh one")
    train.add_argument("--decay-share", type=float, help="share of all steps over which the learning rate falls to zero at the end")
    train.add_argument("--export", type=Path, help="where the finished adapter goes (default: only the checkpoint stays)")
    train.set_defaults(run=_train)

    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _reproduce(options: argparse.Namespace) -> int:
    from filelock import FileLock, Timeout

    root = project_root()
    config = root / "workflow" / "config" / f"{options.profile}.yml"
    if not config.is_file():
        known = sorted(file.stem for file in config.parent.glob("*.yml"))
        raise ValueError(f"profile {options.profile!r} is unknown; choose one of {', '.join(known)}" if known else f"there is no workflow in {root}: run this in a clone of the repository")
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "workflow" / "Snakefile"), "--directory", str(root)]
    snakemake += ["--workflow-profile", str(root / "workflow" / "profiles" / "local"), "--configfile", str(config)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}", "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore")}
    (root / "runs").mkdir(exist_ok=True)
    try:
        with FileLock(root / "runs" / ".lock", timeout=0):
            if options.dry_run:
                return subprocess.run([*snakemake, "--dry-run"], env=environment).returncode
            subprocess.run([*snakemake, "--unlock"], env=environment, capture_output=True)  # a killed run leaves its lock behind
            status = subprocess.run(snakemake, env=environment).returncode
    except Timeout:
        raise RuntimeError("another `sinkprune reproduce` is running here: wait for it or stop it") from None
    if status:
        for line in _failures(root / "runs" / options.profile / "notebooks"):
            print(line, file=sys.stderr)
        print("error: not everything ran; finished notebooks and records are kept, and the same command goes on from here", file=sys.stderr)
        return status
    return _claims(options)


def _failures(folder: Path) -> list[str]:
    """Return one line per executed notebook that ended with an error."""
    import nbformat

    lines = []
    for file in sorted(folder.glob("*.ipynb")):
        try:
            cells = nbformat.read(file, 4).cells
        except (ValueError, nbformat.reader.NotJSONError):  # the job failed before papermill wrote anything
            continue
        for cell in cells:
            lines += [f"error in {file.stem}: {output.ename}: {output.evalue}" for output in cell.get("outputs", []) if output.output_type == "error"]
    return lines


def _claims(options: argparse.Namespace) -> int:
    from . import claims

    root = project_root()
    found = claims.findings(root / "runs" / options.profile)
    if not found:
        raise FileNotFoundError(f"no findings in runs/{options.profile}: run `sinkprune reproduce --profile {options.profile}` first")
    print(f"\nClaims, profile {options.profile} (verdict, claim, value with 95 % interval):\n")
    print(claims.as_text(claims.verdicts(claims.ledger(), found)))
    print(f"\nFigures: runs/{options.profile}/figures   notebooks as they ran: runs/{options.profile}/notebooks   records: runs/{options.profile}/records")
    return 0


def _publish(options: argparse.Namespace) -> int:
    from .publish import publish

    for file in publish(options.profile):
        print(file.relative_to(project_root()))
    return 0


def _train(options: argparse.Namespace) -> int:
    from .training import Training, export, train

    given = {name: getattr(options, name) for name in ("tokens", "decay_share") if getattr(options, name) is not None}
    config = Training(kind=options.kind, seed=options.seed, **given)
    checkpoint = train(config, options.folder or cache_dir() / "training" / options.kind, options.start_from)
    if options.export is not None:
        print(f"adapter written to {export(checkpoint, options.export)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
