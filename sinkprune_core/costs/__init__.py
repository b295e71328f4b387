"""What models and runs cost: FLOPs, bytes, seconds, memory and disk.

`compute` counts what a forward and a generation take, and measures latency; `pruning` says what a pruning run
will take, before it starts. Open `compute` first.
It may import `pruning` and what lies below it; `training`, `companion` and `cli` import it.
"""
