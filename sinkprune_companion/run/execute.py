"""Run one notebook from its reviewed source through papermill: what every job of the graph does.

    python -m sinkprune_companion.run.execute notebooks/00_start_here.py out.ipynb '{"items": 24}'

It does what `jupytext --to ipynb` and `papermill` do one after the other, in one process instead of two.
"""

import json
import sys
from pathlib import Path

# jsonschema builds a grammar of internationalised addresses for two seconds, which no notebook needs.
sys.modules.setdefault("rfc3987_syntax", None)

import jupytext  # noqa: E402 - after the line above, which spares an import
import papermill  # noqa: E402
from papermill.exceptions import PapermillExecutionError  # noqa: E402


def execute(source: Path, notebook: Path, parameters: dict) -> None:
    """Turn a source in percent format into `notebook` and run that where it lies, with parameters.

    What ran before an error stays in the notebook, which is saved at every cell: `progress` reads how far it
    is. Raises PapermillExecutionError for an error in a cell.
    """
    jupytext.write(jupytext.read(source), notebook)
    papermill.execute_notebook(
        notebook, notebook, parameters, kernel_name="python3", language="python", progress_bar=False
    )


if __name__ == "__main__":
    try:
        execute(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
    except PapermillExecutionError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted: records are kept, and the same command goes on from them")
