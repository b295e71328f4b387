"""`sinkprune diagnose`: say from one pass whether leaving sinks out of calibration can matter for a model."""

import json
import sys

import torch

from sinkprune.cli.commands.diagnose import MEANINGS, Diagnose
from sinkprune.cli.common import described, model_and_texts, print_table, settle_device
from sinkprune.cli.help_pages import say
from sinkprune.files import write_json
from sinkprune_core.calibration.text import Calibration
from sinkprune_core.pruning.diagnosis import diagnose


def run(options: Diagnose) -> None:
    """Print what the sinks hold by kind of linear, and last what follows for pruning."""
    settle_device(options)
    lm, texts = model_and_texts(options, options.length, held_out=False, streamed=None)
    if not lm.is_diffusion:
        options.refuse(("noise_levels",), f"{lm.name} is autoregressive and sees clean text")

    calibration = Calibration(torch.cat(list(texts.values())), options.seed, options.batch)
    found = diagnose(lm, calibration, (options.sparsity,), options.noise_levels, options.sinks)
    if options.json is not None:
        write_json(options.json, json.loads(found.table.to_json(orient="records")))

    title = f"{described(lm)}: {found.left_out:.1%} of the tokens are sinks"
    print_table(found.by_kind().droplevel("sparsity"), None, MEANINGS, title)
    print()
    say(found.sentence(options.sparsity), sys.stdout)
