"""Which weights become zero: `recipe` says how, `engine.prune` does it block by block. Open `engine` first.

Before the first forward: `presets` of recipes, and the `plan` of what a run will do. The loop of `engine` is
given a `pruning_run`, which says where blocks live, and what answers for their inputs. From statistics to
zeros: `choice`, by `criteria` with `sparsegpt`, and by `patterns` or `structured`. `report` says what was
done, `diagnosis` what leaving sinks out could change at all.
"""
