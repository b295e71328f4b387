"""Two calls to the C library's allocator that large tensors on a CPU need; other C libraries than glibc are left alone."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # the numbers of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let freed tensors be used again instead of going back to the system; return whether the C library took the setting.

    glibc maps every large tensor anew and clears it page by page, which costs up to half of the time of a forward with
    logits.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 1 << 26)])


def release_freed_memory() -> bool:
    """Give freed memory back to the system once, e.g. after loading a model that was converted; return whether some was."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False
