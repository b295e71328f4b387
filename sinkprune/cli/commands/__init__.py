"""What the toolkit's commands take: one module for each, with the dataclass of its options as `COMMAND`.

They import nothing heavy; `run` imports what does the work.
"""

ABOUT = {
    "diagnose": "say before pruning whether leaving sinks out can matter",
    "prune": "prune a model and save it in transformers format",
    "generate": "write from a prompt, as the model's family does",
    "trace": "write from prompts, and print how much attention sinks move",
    "evaluate": "likelihood on held-out text, or tasks",
    "recover": "train a pruned model with its zeros held",
    "ship": "make a model ready to publish: one folder with a model card",
    "compare": "two models, or one before and after pruning, in pairs, with a verdict",
}
"""What every command is about, by its name, as it stands in help."""
