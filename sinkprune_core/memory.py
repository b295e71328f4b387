"""How much of an intermediate result to hold at once."""

import torch

UNLIMITED = 1 << 62  # rows
CACHE_BYTES = 768 * 1024  # of a temporary: with what it is made from and into it stays near a core of a CPU


def rows_in_cache(row_bytes: int, device: torch.device) -> int:
    """Return how many rows of an intermediate result to compute at once, each of `row_bytes` bytes.

    On a CPU as many as stay in its cache, at least one; on another device any number. A temporary tensor of
    many megabytes is mapped, cleared and read back by the page on a CPU, which takes longer than its use.
    """
    if device.type != "cpu":
        return UNLIMITED
    return max(1, CACHE_BYTES // row_bytes)
