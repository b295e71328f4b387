"""Attention sinks: measured, found, and followed through generation.

`attention` measures attention mass and hides keys in any transformers model; `detection` says which keys are
sinks, for how many steps, and how far they move; `trace` records them on the states that generation visits.
Start with `detection`.
"""
