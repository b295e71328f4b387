"""The command of lm-evaluation-harness with this project's models and tasks, `sinkprune-lm-eval`.

The harness up to 0.4.13 knows no models but its own. Later releases read the entry points `lm_eval.models`.
"""

import os
import re
import sys
import traceback

from sinkprune.evaluation.suite import NAME, TASKS, groups_of

INCLUDE = "--include_path"


def main() -> int:
    """Run the harness's own command, with the model `sinkprune` and the suite's tasks; return an exit status.

    An error is one line on stderr and status 1; with LMEVAL_LOG_LEVEL=DEBUG its traceback comes before it.
    """
    try:
        from lm_eval.__main__ import cli_evaluate

        from sinkprune.evaluation.harness import harness_model  # noqa: F401 (registers the model `sinkprune`)

        if any(groups_of(part) for argument in sys.argv for part in re.split("[,=]", argument)):
            if any(argument.partition("=")[0] == INCLUDE for argument in sys.argv):
                raise ValueError(
                    f"{INCLUDE} cannot be given with tasks {NAME}*, whose folder it would hide: "
                    f"evaluate them in a run of their own, or give {INCLUDE} {TASKS} alone"
                )
            sys.argv += [INCLUDE, str(TASKS)]

        cli_evaluate()
    except Exception as error:
        if os.environ.get("LMEVAL_LOG_LEVEL", "").upper() == "DEBUG":
            traceback.print_exc()
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1

    return 0


if __name__ == "__main__":
    sys.exit(main())
