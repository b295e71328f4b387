"""Tiny random models as parts that know no format: embedding, projections, gains.

Dimensions: D hidden width, F width of the MLP, E head width.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TinyShape:
    """What a tiny model is, in the papers' terms."""

    vocabulary: int = 72  # tokens
    width: int = 32  # of the hidden states
    mlp: int = 45  # width inside an MLP
    layers: int = 3
    heads: int = 4  # query heads
    groups: int = 2  # key-value heads
    head_width: int = 8
    theta: float = 10_000.0  # base of the rotary frequencies
    epsilon: float = 1e-5  # of the norms
    tied: bool = False  # the output head is the input embedding
    qkv_bias: bool = False  # biases of the query, key and value projections
    head_norm: bool = False  # a norm of every query and key
    gpt2: bool = False  # GPT-2's blocks: layer norms, biases, an MLP without gate, learned positions
    stored: torch.dtype = torch.float32  # of the files
    positions: int = 64  # the longest text, in tokens


class _Drawer:
    """Draws tensors one after another from one stream of random numbers."""

    def __init__(self, shape: TinyShape, seed: int):
        self.shape = shape
        self.rng = torch.Generator().manual_seed(seed)

    def normal(self, *size: int, scale: float = 0.35, offset: float = 0.0) -> torch.Tensor:
        """Return normal numbers in float32 that the stored dtype can hold."""
        numbers = offset + scale * torch.randn(size, generator=self.rng)
        return numbers.to(self.shape.stored).float()

    def gain(self, width: int) -> torch.Tensor:
        """Return the gain of a norm: 1 everywhere would hide one that is left out."""
        return self.normal(width, scale=0.2, offset=1.0)

    def layer(self) -> dict[str, torch.Tensor]:
        """Return the parts of a block. Their order is the order of the random numbers: do not change it."""
        D, F, E = self.shape.width, self.shape.mlp, self.shape.head_width
        queries = self.shape.heads * E
        keys = self.shape.groups * E

        layer = {
            "norm_1": self.gain(D),
            "norm_2": self.gain(D),
            "q": self.normal(queries, D),
            "k": self.normal(keys, D),
            "v": self.normal(keys, D),
            "o": self.normal(D, queries),
            "up": self.normal(F, D),
            "down": self.normal(D, F),
        }

        if self.shape.gpt2:
            for name in ("norm_1", "norm_2", "q", "k", "v", "o", "up", "down"):
                size = F if name == "up" else D
                layer[f"{name}_bias"] = self.normal(size, scale=0.1)
        else:
            layer["gate"] = self.normal(F, D)

        if self.shape.qkv_bias:
            layer["q_bias"] = self.normal(queries)
            layer["k_bias"] = self.normal(keys)
            layer["v_bias"] = self.normal(keys)

        if self.shape.head_norm:
            layer["q_norm"] = self.gain(E)
            layer["k_norm"] = self.gain(E)

        return layer


def draw(shape: TinyShape, seed: int = 0) -> dict:
    """Return the parts of a random model, float32 values that `shape.stored` can hold."""
    drawer = _Drawer(shape, seed)
    D = shape.width
    layers = [drawer.layer() for _ in range(shape.layers)]

    parts = {
        "embedding": drawer.normal(shape.vocabulary, D, scale=0.02),  # small enough for epsilon to count
        "norm": drawer.gain(D),
        "layers": layers,
    }

    if shape.gpt2:
        parts["positions"] = drawer.normal(shape.positions, D, scale=0.02)
        parts["norm_bias"] = drawer.normal(D, scale=0.1)

    if shape.tied:
        parts["head"] = parts["embedding"]
    else:
        parts["head"] = drawer.normal(shape.vocabulary, D)
    return parts
