"""From a causal model to a diffusion model, by training: `lora` is the run, `export` keeps what it leaves."""
