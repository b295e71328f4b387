"""Turns: one call at a time uses a model.

Hooks, switched attention and pruned weights belong to the model and not to the call that made them, so two
calls at once would mix theirs up. A second thread waits until the first has ended. A thread that has its turn
may take it again, as one call is made of others.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_MAKING = threading.Lock()


@contextmanager
def turn(model: nn.Module) -> Iterator[None]:
    """Wait until no other thread has its turn with a model, and hold the turn inside the block."""
    with _MAKING:
        lock = _LOCKS.setdefault(model, threading.RLock())

    with lock:
        yield
