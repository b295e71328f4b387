"""Pictures of attention over a generation, and the style that all pictures have."""
