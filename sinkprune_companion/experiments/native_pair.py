"""What one pass foresees of models that are trained from scratch, as the pairs of notebook 09 are.

Their weights are not shipped, and training text holds the documentation of the packages that are installed.
A record is therefore keyed by how its model was trained, and a run that has the record trains nothing.
"""

from dataclasses import asdict

import pandas as pd

from sinkprune import load
from sinkprune_companion.experiments import why
from sinkprune_companion.experiments.paper_protocol import NOISE_LEVELS
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import protocol_draw
from sinkprune_companion.training.export import export
from sinkprune_companion.training.lora import train
from sinkprune_companion.training.settings import Training, check_settings
from sinkprune_core import LanguageModel

NATIVE_REVISION = 2  # of `native_diagnosis`
NAMES = {  # what notebooks call a model of such a pair, and its kind
    "diffusion, from scratch": "diffusion",
    "autoregressive, from scratch": "autoregressive",
}
CROP_LENGTHS = (128,)  # tokens per crop of training text, as in notebook 09
TRAINING_DTYPE = "bfloat16"  # of the products while training, as there


def native_training(name: str, tokens: int, seed: int = 0) -> Training:
    """Return how a model of NAMES is trained: as in notebook 09, on so many tokens."""
    return Training(
        kind=NAMES[name],
        from_scratch=True,
        tokens=tokens,
        lengths=CROP_LENGTHS,
        seed=seed,
        dtype=TRAINING_DTYPE,
    )


def native_model(run: Run, training: Training, dtype: str) -> LanguageModel:
    """Return a model that is trained from scratch, or was before; a training that was stopped goes on."""
    name = f"native-{training.kind}-{training.tokens}-{training.dtype}-{training.seed}"
    home = run.records.parent
    folder = home / "models" / name

    if folder.exists():
        check_settings(training, folder)
    else:
        trained = train(training, home / "trainings" / name, device=run.device)
        export(trained, folder)

    return load(folder, dtype, run.device)


def native_diagnosis(
    run: Run, name: str, tokens: int, sequences: int, length: int, seed: int, dtype: str = "auto"
) -> pd.DataFrame:
    """Return the record of a table as of `why.diagnosis_table`, of one model of NAMES.

    It is trained first, on so many `tokens`, where the run has no such record.
    """
    training = native_training(name, tokens)

    def compute() -> pd.DataFrame:
        lm = native_model(run, training, dtype)
        return why.diagnosed(lm, protocol_draw(lm, sequences, length, seed))

    key = {"training": asdict(training), "sequences": sequences, "length": length, "seed": seed}
    key |= {"noise_levels": NOISE_LEVELS, "sparsities": list(why.SPARSITIES)}
    return run.record("native_diagnosis", compute, NATIVE_REVISION, **key)
