"""The models of `sinkprune_core.models.random_weights` computed from the papers' formulas in plain torch: what loading is checked against.

Dimensions: V vocabulary, D hidden width, F width of the MLP, T position, H query heads, G key-value heads, E head width.
"""

import math

import torch

from sinkprune_core.models.random_weights import Shape


def rms_norm(x_TD: torch.Tensor, gain_D: torch.Tensor, epsilon: float) -> torch.Tensor:
    return x_TD / torch.sqrt((x_TD * x_TD).mean(-1, keepdim=True) + epsilon) * gain_D


def layer_norm(
    x_TD: torch.Tensor, gain_D: torch.Tensor, bias_D: torch.Tensor, epsilon: float
) -> torch.Tensor:
    centred_TD = x_TD - x_TD.mean(-1, keepdim=True)
    return (
        centred_TD / torch.sqrt((centred_TD * centred_TD).mean(-1, keepdim=True) + epsilon) * gain_D + bias_D
    )


def rotate(x_TE: torch.Tensor, theta: float) -> torch.Tensor:
    """Turn the pairs (i, i + E/2) by position times theta^(-2i/E) (RoFormer, in the half-rotation layout)."""
    half = x_TE.shape[1] // 2
    angle_TI = torch.arange(len(x_TE)).float()[:, None] * theta ** (-torch.arange(half).float() / half)
    first, second = x_TE[:, :half], x_TE[:, half:]
    return torch.cat(
        [first * angle_TI.cos() - second * angle_TI.sin(), second * angle_TI.cos() + first * angle_TI.sin()],
        1,
    )


def reference(
    parts: dict, shape: Shape, ids_T: torch.Tensor, causal: bool = False, swapped: bool = False
) -> torch.Tensor:
    """Return the outputs at every position, float32 (T, V): one sequence, one head at a time."""
    x_TD = parts["embedding"][ids_T]
    if shape.gpt2:
        x_TD = x_TD + parts["positions"][: len(ids_T)]
    E = shape.head_width
    for layer in parts["layers"]:
        if shape.gpt2:
            y_TD = layer_norm(x_TD, layer["norm_1"], layer["norm_1_bias"], shape.epsilon)
        else:
            y_TD = rms_norm(x_TD, layer["norm_1"], shape.epsilon)
        q, k, v = (y_TD @ layer[name].T + layer.get(f"{name}_bias", 0.0) for name in "qkv")
        heads = []
        for head in range(shape.heads):
            group = head // (shape.heads // shape.groups)
            q_TE, k_TE, v_TE = (
                q[:, head * E : (head + 1) * E],
                k[:, group * E : (group + 1) * E],
                v[:, group * E : (group + 1) * E],
            )
            if shape.head_norm:
                q_TE, k_TE = (
                    rms_norm(q_TE, layer["q_norm"], shape.epsilon),
                    rms_norm(k_TE, layer["k_norm"], shape.epsilon),
                )
            if not shape.gpt2:
                q_TE, k_TE = rotate(q_TE, shape.theta), rotate(k_TE, shape.theta)
            score_TT = q_TE @ k_TE.T / math.sqrt(E)
            if causal:
                score_TT = score_TT.masked_fill(torch.ones_like(score_TT).triu(1).bool(), -torch.inf)
            heads.append(torch.softmax(score_TT, -1) @ v_TE)
        x_TD = x_TD + torch.cat(heads, 1) @ layer["o"].T + layer.get("o_bias", 0.0)
        if shape.gpt2:
            y_TF = (
                layer_norm(x_TD, layer["norm_2"], layer["norm_2_bias"], shape.epsilon) @ layer["up"].T
                + layer["up_bias"]
            )
            inner_TF = 0.5 * y_TF * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y_TF + 0.044715 * y_TF**3)))
        else:
            y_TD = rms_norm(x_TD, layer["norm_2"], shape.epsilon)
            gate, up = ("up", "gate") if swapped else ("gate", "up")
            opened_TF = y_TD @ layer[gate].T
            inner_TF = opened_TF / (1 + torch.exp(-opened_TF)) * (y_TD @ layer[up].T)
        x_TD = x_TD + inner_TF @ layer["down"].T + layer.get("down_bias", 0.0)
    if shape.gpt2:
        return layer_norm(x_TD, parts["norm"], parts["norm_bias"], shape.epsilon) @ parts["head"].T
    return rms_norm(x_TD, parts["norm"], shape.epsilon) @ parts["head"].T
