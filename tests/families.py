"""Tiny models of `random_models` computed from the papers' formulas: what loading is checked against.

Dimensions: V vocabulary, D hidden width, F width of the MLP, T position, E head width, B batch.
"""

import json
import math
from pathlib import Path

import torch
from random_models.cases import Case
from random_models.parts import TinyShape

from sinkprune_core.language_model import LanguageModel

LENGTH = 11  # of the texts of `some_ids`


def edit(folder: Path, file: str = "config.json", drop: tuple = (), **values) -> None:
    """Change values in a JSON file of a folder, and drop some."""
    config = json.loads((folder / file).read_text()) | values
    (folder / file).write_text(json.dumps({key: value for key, value in config.items() if key not in drop}))


def some_ids(case: Case, rows: int = 1, seed: int = 0) -> torch.Tensor:
    """Return ids of ordinary tokens, int64 (B, T), with a mask at positions 2 and 7."""
    ids_BT = torch.randint(21, 66, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))
    if case.mask is not None:
        ids_BT[:, [2, 7]] = case.mask
    return ids_BT


def outputs(lm: LanguageModel, ids_BT: torch.Tensor, columns: int | None = None) -> torch.Tensor:
    """Return the logits of the first text, float32 (T, V), for the first `columns` tokens."""
    return lm.model(ids_BT, use_cache=False).logits[0, :, :columns]


def rms_norm(x_TD: torch.Tensor, gain_D: torch.Tensor, epsilon: float) -> torch.Tensor:
    return x_TD / torch.sqrt((x_TD * x_TD).mean(-1, keepdim=True) + epsilon) * gain_D


def layer_norm(
    x_TD: torch.Tensor, gain_D: torch.Tensor, bias_D: torch.Tensor, epsilon: float
) -> torch.Tensor:
    centred_TD = x_TD - x_TD.mean(-1, keepdim=True)
    deviation_T1 = torch.sqrt((centred_TD * centred_TD).mean(-1, keepdim=True) + epsilon)
    return centred_TD / deviation_T1 * gain_D + bias_D


def rotate(x_TE: torch.Tensor, theta: float) -> torch.Tensor:
    """Turn the pairs (i, i + E/2) by position times theta^(-2i/E) (RoFormer, in the half-rotation layout)."""
    half = x_TE.shape[1] // 2
    frequency_I = theta ** (-torch.arange(half).float() / half)
    angle_TI = torch.arange(len(x_TE)).float()[:, None] * frequency_I
    first, second = x_TE[:, :half], x_TE[:, half:]
    return torch.cat(
        [first * angle_TI.cos() - second * angle_TI.sin(), second * angle_TI.cos() + first * angle_TI.sin()],
        dim=1,
    )


def attend(layer: dict, shape: TinyShape, y_TD: torch.Tensor, causal: bool) -> torch.Tensor:
    """Return what attention adds, (T, D), one head at a time."""
    E = shape.head_width
    q, k, v = (y_TD @ layer[name].T + layer.get(f"{name}_bias", 0.0) for name in "qkv")
    heads = []

    for head in range(shape.heads):
        group = head // (shape.heads // shape.groups)
        q_TE = q[:, head * E : (head + 1) * E]
        k_TE = k[:, group * E : (group + 1) * E]
        v_TE = v[:, group * E : (group + 1) * E]

        if shape.head_norm:
            q_TE = rms_norm(q_TE, layer["q_norm"], shape.epsilon)
            k_TE = rms_norm(k_TE, layer["k_norm"], shape.epsilon)
        if not shape.gpt2:
            q_TE = rotate(q_TE, shape.theta)
            k_TE = rotate(k_TE, shape.theta)

        score_TT = q_TE @ k_TE.T / math.sqrt(E)
        if causal:
            future_TT = torch.ones_like(score_TT).triu(1).bool()
            score_TT = score_TT.masked_fill(future_TT, -torch.inf)

        heads.append(torch.softmax(score_TT, -1) @ v_TE)

    return torch.cat(heads, 1) @ layer["o"].T + layer.get("o_bias", 0.0)


def feed_forward(layer: dict, shape: TinyShape, y_TD: torch.Tensor, swapped: bool) -> torch.Tensor:
    """Return what the MLP adds, (T, D): GELU in its tanh form for GPT-2, else SwiGLU."""
    if shape.gpt2:
        y_TF = y_TD @ layer["up"].T + layer["up_bias"]
        inner_TF = 0.5 * y_TF * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y_TF + 0.044715 * y_TF**3)))
    else:
        gate, up = ("up", "gate") if swapped else ("gate", "up")
        opened_TF = y_TD @ layer[gate].T
        inner_TF = opened_TF / (1 + torch.exp(-opened_TF)) * (y_TD @ layer[up].T)
    return inner_TF @ layer["down"].T + layer.get("down_bias", 0.0)


def reference(
    parts: dict, shape: TinyShape, ids_T: torch.Tensor, causal: bool = False, swapped: bool = False
) -> torch.Tensor:
    """Return the outputs at every position, float32 (T, V), of one sequence.

    `swapped` takes the gate of an MLP for its other input: a mistake that has to be noticed.
    """

    def norm(values: dict, name: str, x_TD: torch.Tensor) -> torch.Tensor:
        if shape.gpt2:
            return layer_norm(x_TD, values[name], values[f"{name}_bias"], shape.epsilon)
        return rms_norm(x_TD, values[name], shape.epsilon)

    x_TD = parts["embedding"][ids_T]
    if shape.gpt2:
        x_TD = x_TD + parts["positions"][: len(ids_T)]
    for layer in parts["layers"]:
        x_TD = x_TD + attend(layer, shape, norm(layer, "norm_1", x_TD), causal)
        x_TD = x_TD + feed_forward(layer, shape, norm(layer, "norm_2", x_TD), swapped)
    return norm(parts, "norm", x_TD) @ parts["head"].T
