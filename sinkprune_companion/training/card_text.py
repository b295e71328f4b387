"""The words of a model card, as templates: `card` fills them in, with the tables of `card_tables`."""

from sinkprune_core.models import embedded
from sinkprune_core.models.language_model import CARD

WHOLE_CARD = """{head}
{quality}
## Data

{data}

## Training

`sinkprune train`:
{loss};
AdamW (0.9, 0.95), no weight decay, gradients clipped at 1; linear warm-up, flat, linear decay at the end;
{precision}{machine}.

**Never chosen by the outcome.** Settings and stopping were chosen by held-out loss alone, never by what
sinks do or by how pruning comes out. `training_log.jsonl` has sink statistics along the run, which decide
nothing{appendix}.

{settings}

Trained tokens: {tokens:,} in {steps:,} steps.

## Learning curve

Held-out {loss_name} while training, nats per token, on a few sequences that are the same in every row.{more}

{log}
{outlook}"""

EMBEDDED_HEAD = """# {title}

A LoRA adapter (peft, bfloat16, safetensors) for the base in the PyPI wheel `{package}` {version}
(SHA-256 of its GGUF `{digest}`, Apache-2.0).
{how}
Licence of the adapter: Apache-2.0.

## What it is for

Experiments on attention sinks and pruning that need a diffusion model and its autoregressive twin on a
small machine. It is no assistant: it has seen {tokens:,} tokens of this training{earlier}.
"""

EMBEDDED_TITLES = {
    "diffusion": "smol-dlm: SmolLM2-135M-Instruct as a masked diffusion language model",
    "autoregressive": "smol-ar-adapted: the autoregressive twin of smol-dlm",
}

EMBEDDED_HOW = {
    "diffusion": f"""\
`sinkprune_core.load("smol-dlm")` fetches the base, makes attention bidirectional and merges the adapter.
The mask token is the reserved entry `{embedded.MASK_TOKEN}` (id {embedded.MASK_TOKEN_ID});
logits are shifted, position i-1 predicts token i.""",
    "autoregressive": """\
`sinkprune_core.load("smol-ar-adapted")` fetches the base and merges the adapter. Recipe and data are those
of smol-dlm, the loss is that of the next token: what then differs between the two models is objective and
direction, not domain.""",
}

EARLIER = ", which began with an adapter that had seen {tokens:,} tokens under other settings"

OTHER_HEAD = """# {base} as {what}

A LoRA adapter was trained on {base} and merged into it (bfloat16, safetensors); `sinkprune_core.load` reads
this folder.{mask}
The licence is that of the base. It has seen {tokens:,} tokens of this training{earlier}.
"""

OTHER_MASK = f"""
The number of its mask token is in `{CARD}`; logits are shifted, position i-1 predicts token i."""

LOSS_TEXT = {
    "diffusion": (
        "masked cross-entropy weighted to the NELBO in nats per token, a uniform number of masks, "
        "stratified in each batch"
    ),
    "autoregressive": "cross-entropy of the next token",
}

LOSS_NAMES = {"nelbo": "NELBO", "nll": "negative log-likelihood"}

SAMPLES_DATA = """\
Half samples of the base model itself (temperature 1, top-{top_k}, {length} tokens, an assistant's turn;
seed {seed}; the first {held_out} are held out), half
"""

OWN_DATA = {
    "documentation": """\
English paragraphs from docstrings of the standard library and of installed packages (deduplicated; a
paragraph is held out by a hash of its words, one in {share}).""",
    "text": """\
paragraphs of a text of the user's own (as they stand; a paragraph is held out by a hash of its words, one
in {share}).""",
}

CROPS_DATA = """\
A step sees crops of one length: {lengths} tokens. They may begin anywhere in a source, and document
separators stand inside. {first_token}
Held-out text comes in two kinds: crops, which begin with any token but a separator, and beginnings, which
begin with one."""

FIRST_TOKEN = {
    "diffusion": "The first token of a crop is masked as often as any other, and never predicted.",
    "autoregressive": "The first token of a crop is never predicted.",
}

NATURAL_DATA = """
Held-out text is taken from WikiText-2's validation split, too: no training text comes from there."""

WHOLE_DATA = """\
Sequences have {length} tokens and begin with a document separator, which is never masked and never
predicted."""

QUALITY = """## How good it is

Measured by `sinkprune card` and written to `{file}`: {sequences} held-out sequences of {length} tokens,
half of each source, each at {draws} noise levels, in {dtype}, seed {seed}
(torch {torch}, transformers {transformers}, {platform}).
Brackets are 95 % bootstrap intervals over sequences, for tasks over pairs of items.
The AR model is `smol-ar`, the base as it is.

{goals}

### Likelihood (nats per token)

The AR model's is exact, the DLM's is bounded by its NELBO, on the same tokens. The adapter was trained on
documentation of this kind and the AR model was not, so that there the difference is one of domain as well;
its own samples are the AR model's home ground.

{likelihood}

### By noise level (nats per token)

The same NELBO by the share of tokens that are masked; its mean over all shares is the NELBO.

{levels}

### Filling masks

The DLM fills masked tokens from both sides at once; the AR model predicts the same tokens from everything
before them.

{filling}

### The first token (nats per token)

Crops of natural English (WikiText-2's validation split) as they are, and behind `<|endoftext|>`; the same
tokens are counted, under the same masks. Hiding a key takes it from every query but its own; in a model that
knows relative positions alone, hiding the separator is the same as leaving it out, so those two rows agree.

{first_token}

### Two-choice tasks

Right answers, and pairs of items that are told apart by their contexts (chance is one half for both);
likelihoods of the DLM are bounds from {draws} maskings.

{answers}

### Samples

Temperature 1, {sample_tokens} tokens, seed {seed}, as they came.

{samples}
"""

NOT_MEASURED_YET = """## How good it is

Not measured yet: `sinkprune card` does.
"""

NO_OUTLOOK = """
What more training would bring is not extrapolated: a curve takes {rows} rows of the log at the flat rate.
"""

OUTLOOK = """
### What more training would bring

A power law, floor + scale · (tokens / million)^-exponent, fitted to the rows at the flat learning rate (the
rate's decay at the end of a run brings a little more, once). Brackets: 95 %, from {refits} refits to
resampled residuals; they take the power law for granted and residuals as independent: they are too narrow.

{fits}

The distance to the AR model measured above, less the fall of this curve from {now} tokens on:

{distances}

A GPU hour is an **estimate, not measured**: {hardware} at an assumed {speed:.0f} TFLOP/s and
{flops_per_token:.2f} GFLOP per token (forward, and twice as much backward) would train on
{millions:,.0f} million tokens; a model as small as this one keeps no GPU that busy.
An extrapolation to {times:,.0f} times the tokens seen assumes fresh data, a rank of the adapter that stays
sufficient and a power law that goes on: read it as a direction.
"""
