"""Progress bars leave an executed notebook: they stand there as they were when it was saved, and never move.

The last step of a notebook's job: `python -m sinkprune_companion.run.progress_bars NOTEBOOK`.
"""

import json
import sys
from pathlib import Path

from sinkprune.files import atomic

WIDGETS = "application/vnd.jupyter.widget-view+json"
BAR = "%|"  # between the share and the drawn bar of a line that tqdm prints


def is_progress(output: dict) -> bool:
    """Return whether an output of a cell is a progress bar: a widget, or lines that tqdm printed."""
    if WIDGETS in output.get("data", {}):
        return True
    text = "".join(output.get("text", ""))
    lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return output.get("name") == "stderr" and bool(lines) and all(BAR in line for line in lines)


def remove_progress_bars(file: Path) -> None:
    """Rewrite an executed notebook without its progress bars and without the state of widgets."""
    notebook = json.loads(file.read_text(encoding="utf-8"))
    notebook["metadata"].pop("widgets", None)

    for cell in notebook["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if not is_progress(output)]

    with atomic(file) as partial:
        partial.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    remove_progress_bars(Path(sys.argv[1]))
