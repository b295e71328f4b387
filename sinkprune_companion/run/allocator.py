"""What notebooks and trainings ask of glibc's allocator; other C libraries are left alone."""

import ctypes

# Parameters of `mallopt`, by the numbers in glibc's malloc.h.
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let freed tensors be used again instead of going back to the system; return whether glibc took the
    setting.

    glibc maps every large tensor anew and clears it page by page, which costs up to half of the time of a
    forward with logits.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    taken = [
        mallopt(_MMAP_MAX, 0),  # large tensors come from the heap, too
        mallopt(_TRIM_THRESHOLD, 2**31 - 1),  # bytes free at its end before it shrinks
        mallopt(_TOP_PAD, 2**26),  # bytes that it grows by beyond what is asked for
    ]
    return all(taken)
