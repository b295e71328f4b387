"""Generation step by step for a page: what a trace holds, packed into JSON, and HTML that moves through it.

A *view* is one prompt of one model: the text at every step, and the attention mass of every token, quantised.
`data/web/steps.js` draws views; it needs no kernel and no network.

Dimensions: B prompt, S step, L layer, K key position.
"""

import html
import itertools
import json

import numpy as np
import torch

from sinkprune_companion import DATA
from sinkprune_companion.figures.figures import save_files
from sinkprune_companion.readings import LITERAL, READINGS
from sinkprune_companion.run.records import Run
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.sinks.trace import Trace

WEB = DATA / "web"
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
    """Return attention mass as one letter per key, on a logarithmic scale from LEAST to `most`."""
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

    tokens = [token for token in ids_SK.unique().tolist() if token != lm.mask_token_id]
    known = {token: number for number, token in enumerate(tokens)}
    states = [[known.get(token, MASK) for token in state] for state in ids_SK.tolist()]
    words = lm.tokenizer.decode(trace.final_BK[prompt, : trace.prompt_length].tolist()).split()

    chosen = {MEAN: mass_SLK.mean(1)}
    if layers:
        chosen |= {f"layer {number}": mass_SK for number, mass_SK in enumerate(mass_SLK.unbind(1))}

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
    """Return what `steps.js` draws: views of trajectories of `steps` steps, below each other or, with `pick`,
    two models beside each other, with menus for prompt, models and layer.
    """
    numbers = [step + 1 for step in shown_steps(steps)]
    most = len(views[0]["first"])  # tokens of all views
    return {"pick": pick, "least": LEAST, "most": most, "steps": numbers, "views": views}


def _as_json(drawn: dict) -> str:
    return json.dumps(drawn, separators=(",", ":"), ensure_ascii=False)


def fragment(name: str, drawn: dict) -> str:
    """Return HTML that shows `data` where scripts run, for any page in which `name` is unique."""
    script = (WEB / "steps.js").read_text(encoding="utf-8")
    values = _as_json(drawn).replace("<", "\\u003c")
    identity = html.escape(f"sink-steps-{name}")
    return (
        f'<div id="{identity}" hidden></div>\n<script>\n(function () {{\n{script}'
        f'sinkSteps(document.getElementById("{identity}"), {values});\n}})();\n</script>\n'
    )


def page(name: str, title: str, drawn: dict) -> str:
    """Return a whole HTML page that shows `data`."""
    frame = (WEB / "page.html").read_text(encoding="utf-8")
    return frame.format(title=html.escape(title), fragment=fragment(name, drawn))


def save_slider(run: Run, name: str, title: str, drawn: dict) -> object:
    """Write `page` beside the figure `name` as `<name>.html`; return the same for a notebook to show."""
    from IPython.display import HTML

    save_files(run, name, {".html": page(name, title, drawn).encode()})
    return HTML(fragment(name, drawn))


def save_explorer(run: Run, name: str, caption: str, drawn: dict) -> None:
    """Write `data` as `<name>_steps.json` and its provenance as `<name>.json`."""
    save_files(run, name, {"_steps.json": f"{_as_json(drawn)}\n".encode()}, caption)
