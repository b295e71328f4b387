"""What a notebook's run needs and leaves: records, texts, profiles and their archives, templates."""
