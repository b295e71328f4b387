"""From an autoregressive base to a diffusion model, by training an adapter. Read `lora` first: it is the run.

A run has `settings`, a `base`, data (`samples`, `crops`), `losses`, a log (`held_out`) and a `checkpoint`;
`export` keeps what it leaves. `card` writes the model card (`card_text`, `card_tables`), `card_measures`
measures for it, and `learning_curve` extrapolates. May import `costs` and what lies below it; `cli` and
`companion` import it.
"""
