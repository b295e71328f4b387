"""The commands of this paper's reproduction, which `sinkprune` offers beside its own: one module for each.

Their options are data, in `data/commands.yml`, and `checks` holds what is refused before any work.
"""
