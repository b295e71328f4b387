"""What a killed run resumes from, and what a run takes.

`pruning` and `diagnosing` are the core's functions with a work folder. `resume` keeps in it what is finished,
block by block. `memory_and_disk` says before a run what it takes.
"""
