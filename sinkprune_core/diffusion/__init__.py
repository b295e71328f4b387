"""Masked diffusion: the forward process, and generation.

`noise` masks tokens; `samplers` holds the settings of generation; `sampling` generates, with `proposals` of
tokens for one step, and decodes autoregressive models, too.
Start with `sampling`.
"""
