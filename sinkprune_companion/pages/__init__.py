"""What README, docs and notebooks say, with numbers filled in."""
