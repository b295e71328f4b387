"""How good a model is, with intervals. Read `likelihood` first, then `intervals`.

`token_losses`, `protocols`, `conditional_likelihood`: targets after prompts. `significance`: tests.
`suite`, `suite_builder`, `two_choice`, `maskings`: the offline items. `comparison`: two models in pairs.
`quality`: a model beside its twin. `public_data`, `data_files`, `local_data`: texts and pairs. `benchmarks`,
`local_tasks`, `harness*`: lm-evaluation-harness.
May import diffusion, models and the small helpers; training, companion and cli import it.
"""
