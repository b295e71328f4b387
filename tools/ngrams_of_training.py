"""Write what a bigram model of a training's own text makes of the articles that are scored.

    python tools/ngrams_of_training.py RUN MODEL

RUN is the folder of a training from scratch, which keeps its text as tokens, and MODEL what it exported.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from sinkprune_companion.experiments.longer_training import NGRAMS
from sinkprune_companion.experiments.ngram_levels import levels_by
from sinkprune_companion.experiments.paper_protocol import LENGTH
from sinkprune_companion.run.texts import protocol_texts
from sinkprune_companion.training.crops import DATA

SEQUENCES = 264  # that are scored under the paper's protocol


def main() -> None:
    """Write the file beside the model."""
    run, model = map(Path, sys.argv[1:])
    tokenizer = AutoTokenizer.from_pretrained(model)
    data = load_file(run / DATA)
    stream_T = torch.cat([ids.long() for name, ids in sorted(data.items()) if name.startswith("train_")])

    levels = levels_by(stream_T, len(tokenizer), protocol_texts(tokenizer, SEQUENCES, LENGTH))
    levels.round(6).to_csv(model / NGRAMS, index=False)
    print(levels[["unigram", "bigram"]].mean())


if __name__ == "__main__":
    main()
