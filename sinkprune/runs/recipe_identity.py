"""What tells recipes from one another in a work folder: their fields, every choice by its name."""

import hashlib
import json

from sinkprune_core.calibration.token_weights import StatisticsKey, choice_name
from sinkprune_core.pruning.recipe import Recipe, as_settings


def settings_digest(settings: Recipe | StatisticsKey) -> str:
    """Return a SHA-256 prefix over all fields of a recipe, or of the part that decides its statistics."""
    fields = json.dumps(as_settings(settings), sort_keys=True)
    return hashlib.sha256(fields.encode()).hexdigest()[:12]


def check_named(**choices: object) -> None:
    """Raise ValueError for a choice that is a user's function: two of one name would share their files."""
    for field, choice in choices.items():
        if callable(choice):
            raise ValueError(
                f"{field}={choice_name(choice)} is a function, and a work folder knows choices by name: "
                "leave out work=, with a model that is loaded whole, or give a choice that has a name"
            )
