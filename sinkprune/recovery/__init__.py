"""Training with zeros held, and what a pruned model is shipped as."""

from pathlib import Path

PLANNED = Path("recovered")  # where a run that is only planned would write, if no place is named
