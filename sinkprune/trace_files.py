"""Traces of attention in files: what `sinkprune trace --out` writes, and how to read it."""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sinkprune_core.sinks.trace import BY_PROMPT, Trace

ABOUT = "trace"  # the entry of a file that holds what is no tensor


def save_trace(trace: Trace, file: Path | str) -> None:
    """Write a trace as safetensors, plainly: a caller that may be killed writes beside and renames."""
    tensors = {name: getattr(trace, name).contiguous() for name in (*BY_PROMPT, "windows_S2")}
    about = json.dumps({"prompt_length": trace.prompt_length, "causal": trace.causal})
    save_file(tensors, file, metadata={ABOUT: about})  # several entries would be in no fixed order


def load_trace(file: Path | str) -> Trace:
    """Read a trace that `save_trace` wrote."""
    with safe_open(file, "pt") as handle:
        about = json.loads(handle.metadata()[ABOUT])
    return Trace(**load_file(file), **about)
