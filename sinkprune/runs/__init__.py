"""What a pruning run keeps on disk, so that a killed one goes on, and what it takes. Open `pruning` first.

`pruning` and `diagnosing` are the core's, in a work folder. `checkpoint` has the finished blocks of a run,
its rows and its statistics. `work_folder` says whose a folder is, which of its files are whole and what may
be removed; `recipe_identity` tells one recipe from another. `waiting` keeps what goes from block to block,
and `on_disk` how far a pass over the text has come, with what `observed` says of an observer. `dense_pass` is
the core's pass for statistics that goes on from there. `memory_and_disk` says before a run what it takes.
"""
