"""The shell command `sinkprune`: `main` parses a command line and runs the module of that command.

Modules of commands import torch and pandas, so they are imported only to be run: help and errors in options
need neither. This folder may import every other one of the toolkit, and only commands of others import it.
"""
