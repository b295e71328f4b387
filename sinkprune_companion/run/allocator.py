"""What notebooks and trainings ask of glibc's allocator; other C libraries are left alone."""

import ctypes
from contextlib import suppress

# Parameters of `mallopt`, by the numbers in glibc's malloc.h.
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Let freed tensors be used again instead of going back to the system.

    glibc maps every large tensor anew and clears it page by page, which costs up to half of the time of a
    forward with logits.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)  # large tensors come from the heap, too
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)  # bytes free at its end before it shrinks
        mallopt(_TOP_PAD, 2**26)  # bytes that it grows by beyond what is asked for
