"""From a name to weights: `loading` (`load`), `language_model` (the interface every other folder works with).

The table of models is `catalog`, over data/models.yml. Reading: `hub`, `embedded`, `weight_files`, `formats`,
`configurations`, `tokenizer_files`, `reader`. Running: `placement` (several devices), `blocks` (one by one),
`waiting` (between blocks), `streaming` (from disk), `meta_model` (shapes). Open `language_model.py` first.
"""
