"""`sinkprune train`: make a diffusion model, or its autoregressive twin, from a causal model or anew."""

import shlex
from dataclasses import fields

from sinkprune.cli.common import settle_device
from sinkprune.files import read_text
from sinkprune_companion.cli.commands.train import Train
from sinkprune_companion.training import lora
from sinkprune_companion.training.base import EMBEDDED_BASE
from sinkprune_companion.training.export import export
from sinkprune_companion.training.settings import Training, training_dtype


def run(options: Train) -> None:
    """Train in the run's folder, going on from its last checkpoint, and export what came out."""
    settle_device(options)
    names = [part.name for part in fields(Training) if hasattr(options, part.name)]
    settings = {name: getattr(options, name) for name in names}
    settings |= {"dtype": training_dtype(options.dtype, options.device), "alpha": 2 * options.rank}
    text = None if options.text is None else read_text(options.text)
    folder = lora.train(
        Training(**settings),
        options.work_folder,
        options.begin_with,
        text=text,
        device=options.device,
        wikitext=options.wikitext,
    )
    if options.export is None:
        return

    export(folder, options.export)
    if options.base == EMBEDDED_BASE and not options.from_scratch:
        print(f"adapter written to {options.export}")
    else:
        pruned = shlex.join([str(options.export), "--out", f"{options.export}-pruned"])
        print(f"model written to {options.export}\nnext: sinkprune prune {pruned}")
