"""Generation step by step for a page: what a trace holds, packed into JSON, and HTML that moves through it.

A *view* is one prompt of one model: the text at every step, and the attention mass of every token, quantised.
`data/web/steps.js` draws views; it needs no kernel and no network.

Dimensions: B prompt, S step, L layer, K key position.
"""

import html
import itertools
import json
from pathlib import Path

import numpy as np
import torch

from sinkprune_companion import DATA
from sinkprune_companion.figures.figures import add_file, place, save_provenance
from sinkprune_companion.run.records import Run
from sinkprune_core.files import atomic
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.sinks.readings import LITERAL, READINGS
from sinkprune_core.sinks.trace import Trace

SCRIPT = DATA / "web" / "steps.js"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"  # one per level of attention
LEAST = 0.02  # mass of level 0, in units of the mean; that of the highest is the number of keys
STEPS = 24  # that a view shows at most
MEAN = "mean over layers and heads"
MASK = -1  # stands for a mask among the numbers of tokens
OPENING_WORDS = 6  # of a prompt, in the menu of prompts


def shown_steps(steps: int) -> list[int]:
    """Return which steps are shown, from 0: at most STEPS, evenly spaced, with the first and the last."""
    return np.linspace(0, steps - 1, min(steps, STEPS)).round().astype(int).tolist()


def letters(mass_K: torch.Tensor, most: float) -> str:
    """Return attention mass as one letter per key, on a logarithmic scale from LEAST to `most`.

    A mass in between is off by half a level at most.
    """
    highest = len(LETTERS) - 1
    within_K = mass_K.double().clamp(LEAST, most) / LEAST
    levels_K = (within_K.log() / torch.tensor(most / LEAST).double().log() * highest).round()
    return "".join(LETTERS[int(level)] for level in levels_K.flatten())


def view(lm: LanguageModel, trace: Trace, prompt: int, sink_std: float = 2.0, layers: bool = False) -> dict:
    """Return one prompt of a trace as JSON values, in the literal reading; with `layers`, every layer too.

    `tokens` are the different tokens; `first` and `changes` hold their numbers, MASK for a mask: first for
    every position, then per further step the positions that changed. `visible` says per step how many keys
    exist. A layer has `mass` (a letter per step and key) and `sinks` (positions per step).
    """
    reading = READINGS[LITERAL]
    steps = shown_steps(trace.ids_BSK.shape[1])
    ids_SK = trace.ids_BSK[prompt, steps]
    visible_SK = reading.visible(trace)[steps]
    mass_SLK = reading.mass(trace)[prompt, steps]
    chosen = {MEAN: mass_SLK.mean(1)}
    if layers:
        chosen |= {f"layer {number}": mass_SLK[:, number] for number in range(mass_SLK.shape[1])}
    tokens = [token for token in ids_SK.unique().tolist() if token != lm.mask_token_id]
    known = {token: number for number, token in enumerate(tokens)}
    words = lm.tokenizer.decode(trace.final_BK[prompt, : trace.prompt_length].tolist()).split()
    states = [[known.get(token, MASK) for token in state] for state in ids_SK.tolist()]
    drawn = []
    for name, mass_SK in chosen.items():
        sinks_SK = reading.sinks(mass_SK, visible_SK, sink_std)
        sinks = [sinks_K.nonzero().flatten().tolist() for sinks_K in sinks_SK]
        drawn.append({"name": name, "mass": letters(mass_SK, most=ids_SK.shape[1]), "sinks": sinks})
    return {
        "title": f"{lm.kind} ({lm.name})",
        "prompt": f"{prompt + 1}: {' '.join(words[:OPENING_WORDS])} …",
        "prompt_length": trace.prompt_length,
        "tokens": [lm.tokenizer.decode([token]) for token in known],
        "first": states[0],
        "changes": [
            [(place, new) for place, (old, new) in enumerate(zip(*pair, strict=True)) if new != old]
            for pair in itertools.pairwise(states)
        ],
        "visible": visible_SK.sum(1).tolist(),
        "layers": drawn,
    }


def views(
    traced: list[tuple[LanguageModel, Trace]], prompts: int, sink_std: float = 2.0, layers: bool = False
) -> list[dict]:
    """Return the views of the first prompts of every model and its trace."""
    return [
        view(lm, trace, prompt, sink_std, layers)
        for prompt in range(min(prompts, len(traced[0][1].final_BK)))
        for lm, trace in traced
    ]


def data(views: list[dict], steps: int, pick: bool = False) -> dict:
    """Return what `steps.js` draws: views of trajectories of `steps` steps and how to read their letters.

    Views stand below each other; with `pick` one is shown at a time, with menus for prompt, model and layer.
    """
    numbers = [step + 1 for step in shown_steps(steps)]
    most = len(views[0]["first"])  # tokens of all views
    return {"pick": pick, "least": LEAST, "most": most, "steps": numbers, "views": views}


def as_json(drawn: dict) -> str:
    """Return `data` as JSON without spaces."""
    return json.dumps(drawn, separators=(",", ":"), ensure_ascii=False)


def fragment(name: str, drawn: dict) -> str:
    """Return HTML that shows `data`, to stand anywhere in a page; `name` is unique in the page.

    Where scripts do not run, nothing is seen of it.
    """
    values = as_json(drawn).replace("<", "\\u003c")
    identity = html.escape(f"sink-steps-{name}")
    return (
        f'<div id="{identity}" hidden></div>\n<script>\n(function () {{\n{SCRIPT.read_text(encoding="utf-8")}'
        f'sinkSteps(document.getElementById("{identity}"), {values});\n}})();\n</script>\n'
    )


def page(name: str, title: str, drawn: dict) -> str:
    """Return a whole HTML page that shows `data`."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n</head>\n"
        '<body style="font-family: sans-serif; max-width: 60em; margin: 1em auto; padding: 0 1em">\n'
        f"<h1>{html.escape(title)}</h1>\n{fragment(name, drawn)}</body>\n</html>\n"
    )


def save_slider(run: Run, name: str, title: str, drawn: dict) -> object:
    """Write `page` beside the figure `name` as `<name>.html`; return the same for a notebook to show."""
    from IPython.display import HTML

    file = place(run, f"{name}.html")
    with atomic(file) as partial:
        partial.write_text(page(name, title, drawn), encoding="utf-8")
    add_file(run, name, file)
    return HTML(fragment(name, drawn))


def save_explorer(run: Run, name: str, caption: str, drawn: dict) -> Path:
    """Write `data` as `<name>_steps.json` and its provenance as `<name>.json`; return the first."""
    file = place(run, f"{name}_steps.json")
    with atomic(file) as partial:
        partial.write_text(as_json(drawn) + "\n", encoding="utf-8")
    save_provenance(run, name, caption, file)
    return file
