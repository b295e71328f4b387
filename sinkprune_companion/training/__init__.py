"""From an autoregressive base to a diffusion model, by training an adapter. Read `lora` first: it is the run.

A run has `settings`, a `base`, data (`crops`), `losses`, a `log` and a `checkpoint`; `export`
keeps what it leaves. `card` fills in the model card.
"""
