"""Claims, margins and the verdict rule."""
