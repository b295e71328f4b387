"""The door to lm-evaluation-harness, and the tasks that the project brings: its suite, BLiMP, WikiText-2."""
