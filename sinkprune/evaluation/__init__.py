"""How good a model is, with intervals. Read `likelihood` first, then `intervals`.

`token_losses`, `protocols`, `conditional_likelihood`: targets after prompts. `two_choice`, `maskings`:
which of two endings is likelier. `suite` and `local_data`: items and texts that ship or lie in a folder.
`verdict_rule`: what an interval decides. `harness`: the door to lm-evaluation-harness.
"""
