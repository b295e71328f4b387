"""Memory of this machine: how much is free, and two calls to the C library's allocator that large tensors on a CPU need.

Other C libraries than glibc are left alone.
"""

import ctypes
import os
import re
from pathlib import Path

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


def free_memory() -> int:
    """Return the bytes of main memory that can be allocated now; a container's limit counts."""
    try:
        free = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024
    except (OSError, TypeError):  # no Linux
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 62
    group = Path("/sys/fs/cgroup")
    try:
        free = min(
            free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        )
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return free


def release_freed_memory() -> bool:
    """Give freed memory back to the system once, e.g. after loading a model that was converted; return whether some was."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False
