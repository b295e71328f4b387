"""The command `sinkprune`: prune, trace and evaluate models; reproduce the paper's claims; train the embedded adapter."""

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from sinkprune_core.files import cache_dir, project_root

LIGHT = (
    "reproduce",
    "claims",
    "publish",
)  # commands that need no torch: a graph of notebooks would hold its 300 MB all the time


def parser(light: bool = False) -> argparse.ArgumentParser:
    """Return the parser of all subcommands; what it parses has `run`, a function of the options.

    A `light` one serves the commands LIGHT only: it knows neither presets nor devices, which take torch.
    """
    parser = argparse.ArgumentParser(prog="sinkprune", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    presets, cuda = ((), False) if light else _presets_and_cuda()

    prune = _model_command(
        commands, "prune", "prune a model and save it in transformers format", sequences=128, cuda=cuda
    )
    prune.add_argument("--out", type=Path, help="folder for the pruned model; it must not exist")
    prune.add_argument(
        "--preset",
        default="unstable",
        help=f"a recipe of the literature: {', '.join(presets)} (default: unstable)",
    )
    prune.add_argument("--sparsity", type=float, help="share of zeros in the blocks' linears (default: 0.5)")
    prune.add_argument("--pattern", help="row, layer, global, N:M such as 2:4, or structured")
    prune.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any other field of a recipe, e.g. --set allocation=owl (repeatable)",
    )
    prune.add_argument(
        "--work",
        type=Path,
        help="folder that keeps finished blocks and statistics: a killed run goes on, another sparsity needs no forward (default: OUT.work, removed at the end)",
    )
    prune.add_argument(
        "--stream",
        action="store_true",
        help="read blocks from disk one at a time (default: only where the model does not fit well into memory)",
    )
    prune.add_argument(
        "--masked",
        action="store_true",
        help="structured: keep the dense shape with zeros instead of a smaller model",
    )
    prune.add_argument("--dry-run", action="store_true", help="say what it takes, and stop")
    prune.set_defaults(run=_run("run_prune"), json=None)

    trace = _model_command(
        commands, "trace", "generate and record where attention goes, step by step", sequences=8, cuda=cuda
    )
    trace.add_argument("--out", type=Path, help="file for the trace (safetensors)")
    trace.add_argument("--prompt", type=int, default=32, help="prompt tokens (default: 32)")
    trace.add_argument("--tokens", type=int, default=64, help="tokens to generate (default: 64)")
    trace.add_argument(
        "--steps",
        type=int,
        default=32,
        help="denoising steps, or query windows of an autoregressive model (default: 32)",
    )
    trace.add_argument(
        "--block", type=int, help="block length of semi-autoregressive sampling (default: one block)"
    )
    trace.add_argument("--temperature", type=float, default=0.0)
    trace.add_argument("--json", type=Path, help="file for the table")
    trace.set_defaults(run=_run("run_trace"))

    evaluate = _model_command(
        commands, "evaluate", "likelihood on held-out text, or tasks", sequences=32, cuda=cuda
    )
    evaluate.add_argument(
        "--tasks",
        nargs="+",
        help="tasks of lm-evaluation-harness, by spaces or commas, with --data blimp and wikitext from a local folder; suite (this project's own, offline); or paper (the paper's eight benchmarks)",
    )
    evaluate.add_argument(
        "--family",
        choices=("llada", "dream", "autoregressive"),
        help="whose published settings the paper's benchmarks take, alone or by name (default, for all eight: llada, or autoregressive)",
    )
    evaluate.add_argument("--limit", type=int, help="items per task, or windows of --protocol (default: all)")
    evaluate.add_argument(
        "--protocol",
        help="score the whole --text in windows by a published perplexity protocol: ppl_llada, main_llada or main_dream (default: sequences drawn from it)",
    )
    evaluate.add_argument(
        "--draws",
        type=int,
        default=8,
        help="noise levels per sequence of a diffusion model's NELBO (default: 8)",
    )
    evaluate.add_argument("--json", type=Path, help="file for the table")
    evaluate.set_defaults(run=_run("run_evaluate"))

    reproduce = commands.add_parser("reproduce", help="run the notebooks in order and print the claims table")
    reproduce.add_argument(
        "--profile", default="quick", help="a file of workflow/config without its ending (default: quick)"
    )
    reproduce.add_argument(
        "--on",
        default="local",
        help="a folder of workflow/profiles: local (one machine, default) or slurm (a cluster; needs the extra `slurm`)",
    )
    reproduce.add_argument("--dry-run", action="store_true", help="say what would run, and why")
    reproduce.set_defaults(run=_reproduce)

    ledger = commands.add_parser("claims", help="print the claims table of a run")
    ledger.add_argument("--profile", default="quick")
    ledger.set_defaults(run=_claims)

    publish = commands.add_parser(
        "publish", help="put a finished run into notebooks/, figures/ and README.md"
    )
    publish.add_argument("--profile", default="full")
    publish.set_defaults(run=_publish)

    train = commands.add_parser(
        "train",
        help="make a diffusion model of smol-ar, or of any Llama, Qwen2 or Qwen3 model, by training an adapter",
    )
    train.add_argument(
        "base",
        nargs="?",
        default="smol-ar",
        help="smol-ar (default; its adapter is what smol-dlm is), a hub id of the table of models, or a folder",
    )
    train.add_argument(
        "--kind",
        choices=("diffusion", "autoregressive"),
        default="diffusion",
        help="what the base becomes: a diffusion model, or its autoregressive twin on the same data",
    )
    train.add_argument(
        "--text",
        type=Path,
        help="text file to learn, paragraphs parted by blank lines (default: documentation of this installation); smol-ar learns samples of its own besides",
    )
    train.add_argument(
        "--mask-token",
        help="token of another base, or its number, that stands for a mask (default: one that no text produces)",
    )
    train.add_argument(
        "--tokens", type=int, help="training tokens in all (default: see sinkprune_core/training/lora.py)"
    )
    train.add_argument("--length", type=int, help="tokens per sequence (default: 128)")
    train.add_argument("--batch", type=int, help="sequences per step (default: 16)")
    train.add_argument("--learning-rate", type=float, help="(default: 0.001)")
    train.add_argument("--rank", type=int, help="of the adapter (default: 32)")
    train.add_argument(
        "--device", default="cuda" if cuda else "cpu", help="default: a GPU where there is one"
    )
    train.add_argument("--seed", type=int, default=0)
    train.add_argument(
        "--folder", type=Path, help="checkpoints and log (default: a folder of the base's name in the cache)"
    )
    train.add_argument(
        "--start-from",
        type=Path,
        help="an exported adapter to go on from, at its place in the data, instead of a fresh one",
    )
    train.add_argument(
        "--decay-share",
        type=float,
        help="share of all steps over which the learning rate falls to zero at the end",
    )
    train.add_argument(
        "--export",
        type=Path,
        help="where the adapter of smol-ar goes, or the whole model made from another base (default: only the checkpoint stays)",
    )
    train.set_defaults(run=_train)

    card = commands.add_parser(
        "card", help="measure a diffusion adapter beside smol-ar and write its model card"
    )
    card.add_argument(
        "--folder", type=Path, help="an exported adapter (default: the one that ships with the package)"
    )
    card.add_argument(
        "--sequences", type=int, default=64, help="held-out sequences, half of each source (default: 64)"
    )
    card.add_argument(
        "--draws", type=int, default=4, help="noise draws per sequence and per two-choice item (default: 4)"
    )
    card.add_argument(
        "--items", type=int, default=504, help="items of the offline suite, of 1,512 (default: 504)"
    )
    card.add_argument(
        "--seed", type=int, default=0, help="of the choice of text, of noise and of the samples (default: 0)"
    )
    card.add_argument("--data", type=Path, help="a folder with WikiText-2, BLiMP or both, measured besides")
    card.add_argument(
        "--render",
        action="store_true",
        help="measure nothing: write the card anew from the files beside the adapter",
    )
    card.set_defaults(run=_card)

    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; an expected error is one line on stderr and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser(light=arguments[:1] != [] and arguments[0] in LIGHT).parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _model_command(commands, name: str, help: str, sequences: int, cuda: bool) -> argparse.ArgumentParser:
    """Return the parser of a command on one model and some text, with the flags all of them share."""
    parser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("model", help="smol-dlm, smol-ar, a hub id of the table of models, or a folder")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 or auto (default)")
    parser.add_argument(
        "--device", default="cuda" if cuda else "cpu", help="default: a GPU where there is one"
    )
    parser.add_argument(
        "--device-map",
        help="spread the model over several devices: auto (all GPUs), or a JSON object of parts and devices (default: --device alone)",
    )
    parser.add_argument(
        "--text",
        type=Path,
        help="text file to take sequences from, or wikitext-2 (default: documentation of this installation, and samples of smol-ar for its own vocabulary)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder that holds WikiText-2 or BLiMP as published, as text, JSON lines or parquet (default: the hub)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        help="split of wikitext-2 (default: train for calibration, test for evaluation)",
    )
    parser.add_argument(
        "--sequences", type=int, default=sequences, help=f"sequences of text (default: {sequences})"
    )
    parser.add_argument("--length", type=int, help="tokens per sequence (default: 128, with --text 512)")
    parser.add_argument(
        "--batch",
        type=int,
        default=16,
        help="sequences at once; it changes speed and memory only (default: 16)",
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _presets_and_cuda() -> tuple[tuple[str, ...], bool]:
    """Return the names of all presets and whether there is a GPU."""
    import torch

    from sinkprune_core.pruning.recipe import PRESETS

    return tuple(PRESETS), torch.cuda.is_available()


def _run(name: str):
    def run(options: argparse.Namespace) -> int:
        from sinkprune_core.cli import commands

        return getattr(commands, name)(options)

    return run


def _reproduce(options: argparse.Namespace) -> int:
    from filelock import FileLock, Timeout

    from sinkprune_core.memory import free_memory

    root = project_root()
    config = root / "workflow" / "config" / f"{options.profile}.yml"
    if not config.is_file():
        known = sorted(file.stem for file in config.parent.glob("*.yml"))
        raise ValueError(
            f"profile {options.profile!r} is unknown; choose one of {', '.join(known)}"
            if known
            else f"there is no workflow in {root}: run this in a clone of the repository"
        )
    places = sorted(file.parent.name for file in (root / "workflow" / "profiles").glob("*/config.yaml"))
    if options.on not in places:
        raise ValueError(f"--on {options.on}: choose one of {', '.join(places)}")
    if options.on == "slurm" and find_spec("snakemake_executor_plugin_slurm") is None:
        raise ValueError("--on slurm needs snakemake-executor-plugin-slurm: pip install 'sinkprune[slurm]'")
    snakemake = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(root / "workflow" / "Snakefile"),
        "--directory",
        str(root),
    ]
    snakemake += [
        "--workflow-profile",
        str(root / "workflow" / "profiles" / options.on),
        "--configfile",
        str(config),
    ]
    if options.on == "local":
        snakemake += [
            "--resources",
            f"mem_mb={free_memory() >> 20}",
        ]  # jobs share a machine as far as its memory goes
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore"),
    }
    (root / "runs").mkdir(exist_ok=True)
    try:
        with FileLock(root / "runs" / ".lock", timeout=0):
            if options.dry_run:
                return subprocess.run([*snakemake, "--dry-run"], env=environment).returncode
            subprocess.run(
                [*snakemake, "--unlock"], env=environment, capture_output=True
            )  # a killed run leaves its lock behind
            status = subprocess.run(snakemake, env=environment).returncode
    except Timeout:
        raise RuntimeError("another `sinkprune reproduce` is running here: wait for it or stop it") from None
    if status:
        for line in _failures(root / "runs" / options.profile):
            print(line, file=sys.stderr)
        print(
            "error: not everything ran; finished notebooks and records are kept, and the same command goes on from here",
            file=sys.stderr,
        )
        return status
    return _claims(options)


def _failures(folder: Path) -> list[str]:
    """Return one line per executed notebook of a run, cells of sweeps included, that ended with an error."""
    import nbformat

    lines = []
    for file in [*sorted(folder.glob("notebooks/*.ipynb")), *sorted(folder.glob("cells/*/*/*.ipynb"))]:
        try:
            cells = nbformat.read(file, 4).cells
        except (ValueError, nbformat.reader.NotJSONError):  # the job failed before papermill wrote anything
            continue
        for cell in cells:
            where = file.stem if file.parent.name == "notebooks" else f"{file.stem}, cell {file.parent.name}"
            lines += [
                f"error in {where}: {output.ename}: {output.evalue}"
                for output in cell.get("outputs", [])
                if output.output_type == "error"
            ]
    return lines


def _claims(options: argparse.Namespace) -> int:
    from sinkprune_core.companion import claims

    root = project_root()
    found = claims.findings(root / "runs" / options.profile)
    if not found:
        raise FileNotFoundError(
            f"no findings in runs/{options.profile}: run `sinkprune reproduce --profile {options.profile}` first"
        )
    print(f"\nClaims, profile {options.profile} (verdict, claim, value with 95 % interval):\n")
    print(claims.as_text(claims.verdicts(claims.ledger(), found)))
    print(
        f"\nFigures: runs/{options.profile}/figures   notebooks as they ran: runs/{options.profile}/notebooks   records: runs/{options.profile}/records"
    )
    return 0


def _publish(options: argparse.Namespace) -> int:
    from sinkprune_core.companion.publish import publish

    for file in publish(options.profile):
        print(file.relative_to(project_root()))
    return 0


def _train(options: argparse.Namespace) -> int:
    from sinkprune_core.training.base import EMBEDDED_BASE
    from sinkprune_core.training.export import export
    from sinkprune_core.training.lora import Training, train

    embeds = options.base == EMBEDDED_BASE
    if options.export is not None and not embeds and options.export.exists():
        raise FileExistsError(f"--export {options.export} exists: choose another name or remove it first")
    given = {
        name: getattr(options, name)
        for name in ("tokens", "length", "batch", "learning_rate", "rank", "decay_share")
        if getattr(options, name) is not None
    }
    if "rank" in given:
        given["alpha"] = 2 * given["rank"]
    config = Training(
        kind=options.kind,
        base=options.base,
        mask_token=options.mask_token,
        seed=options.seed,
        **({} if embeds else {"samples": 0}),
        **given,
    )
    text = None if options.text is None else options.text.read_text(encoding="utf-8")
    folder = options.folder or cache_dir() / "training" / (
        options.kind if embeds else f"{Path(options.base).name}-{options.kind}"
    )
    checkpoint = train(config, folder, options.start_from, text=text, device=options.device)
    if options.export is not None:
        more = (
            f"; measures for its model card: sinkprune card --folder {options.export}"
            if embeds and options.kind == "diffusion"
            else f"; prune it: sinkprune prune {options.export} --out ..."
            if not embeds
            else ""
        )
        print(f"{'adapter' if embeds else 'model'} written to {export(checkpoint, options.export)}{more}")
    return 0


def _card(options: argparse.Namespace) -> int:
    from sinkprune_core.models.embedded import ADAPTER
    from sinkprune_core.training.card import write_card
    from sinkprune_core.training.card_measures import write_measures

    folder = options.folder or ADAPTER
    print(
        write_card(folder)
        if options.render
        else write_measures(
            folder, options.sequences, options.draws, options.items, options.seed, options.data
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
