"""What notebooks and trainings ask of glibc's allocator; other C libraries are left alone."""

import ctypes
from contextlib import suppress


def keep_freed_memory() -> None:
    """Let freed tensors be used again: glibc maps large ones anew and clears them page by page, which takes
    up to half of the time of a forward with logits.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt  # takes parameters by their numbers in glibc's malloc.h
        mallopt(-4, 0)  # M_MMAP_MAX: large tensors come from the heap, too
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: bytes free at its end before it shrinks
        mallopt(-2, 2**26)  # M_TOP_PAD: bytes that it grows by beyond what is asked for
