"""Which weights become zero: `recipe` says how, `engine.prune` does it block by block. Open `engine` first.

From statistics to zeros: `criteria` with `sparsegpt`, `patterns`, `structured`. `shrink` makes a smaller
model, and `report` says what was done.
"""
