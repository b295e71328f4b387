"""Training with zeros held, and what a pruned model is shipped as."""
