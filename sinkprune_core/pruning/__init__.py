"""Which weights become zero: `recipe` says how, `engine.prune` does it block by block. Open `engine` first.

From text to statistics: `calibration`, `sink_profiles`, `token_weights`, `input_statistics`,
`dense_statistics`. From statistics to zeros: `criteria` with `sparsegpt`, `patterns`, `structured`; `shrink`
makes a smaller model. Around them: `checkpoint` (killed runs go on) and `cost` (what a run takes).
It may import `sinks`, `diffusion`, `models` and the helpers; `training`, `companion` and `cli` import it.
"""
