"""The shell command `sinkprune`. Read `main` first: its table names the module of every command.

A command's module has its options and its `run`. `options` has what all commands share, `model_options` what
the commands on one model share. `inputs` opens models and texts and `tables` prints results: these two import
torch and pandas, so they are imported in `run`, and help starts without them.
This folder may import every other one, and nothing imports it.
"""
