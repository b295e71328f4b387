"""The shell command `sinkprune`: a file for every command, with one function whose arguments are its options.

`main` turns a command line into a call, and an error into one line. The modules of commands import nothing
heavy before they run, so that help and errors in options come at once; `common` is what those that compute
share, with torch and pandas. This folder may import every other one of the toolkit, and only commands of
others import it.
"""
