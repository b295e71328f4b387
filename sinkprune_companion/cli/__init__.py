"""The commands of this paper's reproduction, which `sinkprune` offers beside its own.

`commands` has what each takes; the modules here do the work.
"""
