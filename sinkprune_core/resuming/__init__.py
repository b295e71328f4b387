"""What a pruning run keeps on disk, so that a killed one goes on where it was. Open `checkpoint` first.

`work_folder` says whose a folder is, which of its files are whole and what may be removed. None of it knows
recipes, only their digests.
"""
