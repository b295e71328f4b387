"""From an autoregressive base to a diffusion model, by training an adapter. Read `lora` first: it is the run.

A run has `settings` and a log, a `base`, data (`crops`), `losses` and a `checkpoint`; `export` keeps what it
leaves. `card` fills in the model card.
"""
