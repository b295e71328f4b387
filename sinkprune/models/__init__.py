"""From a name to weights: `loading` (`load`). Open it first.

The table of models is `catalog`, over data/models.yml. Reading: `hub`, `embedded`, `weight_files`, `formats`,
`configurations`, `tokenizer_files`, `reader`. Running: `placement` (several devices), `streaming` (from
disk), `meta_model` (shapes).
"""
