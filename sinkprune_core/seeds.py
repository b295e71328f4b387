"""Random numbers that depend on what they are for, never on the order in which work happens to be done."""

import hashlib

import numpy as np
import torch


def seed_of(*keys: object) -> int:
    """Return a 63-bit seed that is a pure function of `keys`, e.g. `seed_of(0, "noise", sample_index)`.

    A number of NumPy's gives the seed of Python's.
    """
    plain = tuple(key.item() if isinstance(key, np.generic) else key for key in keys)
    digest = hashlib.sha256(repr(plain).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*keys: object) -> torch.Generator:
    """Return a CPU generator seeded by `keys`; one per sample makes results independent of the batch size."""
    return torch.Generator().manual_seed(seed_of(*keys))
