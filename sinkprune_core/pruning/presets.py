"""The table of presets, `data/presets.yml`: read without torch, so that a command's help can list it."""

import yaml

from sinkprune_core.files import PACKAGE

_TABLE = yaml.safe_load((PACKAGE / "data" / "presets.yml").read_text(encoding="utf-8"))

PRESETS: dict[str, dict] = {name: entry["recipe"] for name, entry in _TABLE.items()}
"""Fields of a `Recipe` that are not its defaults, by the name of the preset."""

FROM: dict[str, dict[float, dict]] = {name: entry.get("from", {}) for name, entry in _TABLE.items()}
"""More of them from a sparsity on, by the name of the preset."""

ABOUT: dict[str, str] = {name: entry["about"] for name, entry in _TABLE.items()}
"""What each preset is, in a few words."""
