"""Main memory: how much is free, what large tensors on a CPU need of the C library's allocator, and how much
of an intermediate result to hold at once.

The settings are those of glibc; other C libraries are left alone.
"""

import ctypes
import os
import re
from pathlib import Path

import torch

# Parameters of `mallopt`, by the numbers in glibc's malloc.h.
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4

CACHE_BYTES = 1 << 21  # what a core of a CPU holds near it: larger temporaries wait for memory


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


def release_freed_memory() -> bool:
    """Give freed memory back to the system once, e.g. after loading a model that was converted.

    Returns whether some was given back.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False


def rows_in_cache(row_bytes: int, device: torch.device) -> int:
    """Return how many rows of an intermediate result to compute at once, each of `row_bytes` bytes.

    On a CPU as many as stay in its cache, at least one; on another device any number. A temporary tensor of
    many megabytes is mapped, cleared and read back by the page on a CPU, which takes longer than what is
    computed on it.
    """
    if device.type != "cpu":
        return 1 << 62
    return max(1, CACHE_BYTES // row_bytes)


def free_memory() -> int:
    """Return the bytes of main memory that can be allocated now; a container's limit counts."""
    return min(_free_on_machine(), _free_in_container())


def _free_on_machine() -> int:
    """Return the free bytes of the machine; of one that does not say, its size, or no limit."""
    try:
        kilobytes = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]
        return int(kilobytes) * 1024
    except (OSError, TypeError):  # not Linux
        if not hasattr(os, "sysconf"):
            return 1 << 62
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_in_container() -> int:
    """Return the free bytes of the container, or no limit without a container that has one."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        return limit - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return 1 << 62
