"""The door to lm-evaluation-harness: this project's models as its models, and its tasks by name."""
