"""The command of lm-evaluation-harness with this project's models: `sinkprune-lm-eval`, or this module by
`python -m`.

The harness finds models by import, so its own command has to come through this module: `python -m
sinkprune_core.evaluation.harness run --model sinkprune --model_args pretrained=smol-dlm,mc_num=32 --tasks
piqa`.
"""

from sinkprune_core.evaluation import harness_model  # noqa: F401 (registers the model `sinkprune`)


def main() -> None:
    """Run lm-evaluation-harness's own command, with the model `sinkprune` registered."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
