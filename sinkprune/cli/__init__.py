"""The shell command `sinkprune`: `main` turns a command line into a run, and an error into one line.

`commands` has a file for every command, with the options it takes, and imports nothing heavy: help and errors
in options come at once. The modules beside `main` do the work, with torch and pandas; a small command calls
what does its work from `commands/<name>.py` itself. This folder may import every other one of the toolkit,
and only commands of others import it.
"""
