"""Plots and their style."""
