"""What a pruning run takes, said before it starts; `compute` counts the FLOPs of a forward."""
