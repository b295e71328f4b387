"""The measurements that notebooks ask for, each a function of a model and a recipe."""
