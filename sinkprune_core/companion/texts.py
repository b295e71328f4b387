"""Text that models are calibrated and scored on in the notebooks.

Dimensions: N sequences, T tokens per sequence.
"""

import torch

from sinkprune_core import corpus
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.pruning.calibration import Calibration
from sinkprune_core.seeds import generator

LETTERS = 10  # no vocabulary puts more letters of English into a token on average


def calibration_draw(lm: LanguageModel, sequences: int, length: int, seed: int) -> Calibration:
    """Return calibration text from the training split, drawn by `seed`: half samples of smol-ar, half
    documentation.
    """
    texts = corpus.texts(lm.tokenizer, sequences, length, held_out=False, seed=seed)
    return Calibration(torch.cat(list(texts.values())), seed)


def any_text(
    lm: LanguageModel, sequences: int, length: int, held_out: bool, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return standard-library documentation in a model's own vocabulary, int64 (N, T), by its source.

    For models that no shipped sample is written for. Raises ValueError when there are fewer sequences than
    asked for.
    """
    texts = [text for text in corpus.documentation("stdlib") if corpus.is_held_out(text) == held_out]
    order = torch.randperm(len(texts), generator=generator(seed, "texts", "documentation", held_out))
    chosen = []
    letters = 0
    for index in order.tolist():
        chosen.append(texts[index])
        letters += len(texts[index])
        if letters > LETTERS * sequences * length:
            break
    ids_NT = corpus.pack(chosen, lm.tokenizer, length)[:sequences]
    if len(ids_NT) < sequences:
        raise ValueError(
            f"sequences={sequences}: the documentation has {len(ids_NT)} of {length} tokens in this split: "
            "ask for fewer or shorter ones"
        )
    return {"documentation": ids_NT}
