"""How good a model is, with intervals. Read `likelihood` first, then `intervals`.

`token_losses`, `protocols`, `conditional_likelihood`: targets after prompts. `two_choice`, `maskings`:
which of two endings is likelier.
"""
