"""Which weights become zero: `recipe` says how, `engine.prune` does it block by block. Open `engine` first.

From statistics to zeros: `criteria` with `sparsegpt`, `patterns`, `structured`; `report` says what was
done.
"""
