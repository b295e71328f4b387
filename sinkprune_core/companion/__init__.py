"""What only the notebooks, their figures and the written pages need; open `records` first.

`records` measures once, `parameters` checks a notebook's parameters, `plans` says what a model would take.
Measured: `variants` (`scoring`, `texts`), `hiding_scores`, `masks`, `suite_answers`. Read: `contrasts`,
`claims` (`verdict_rule`, `margins`, `others`). Drawn in one `style`: `figures`, `forests`, `sink_figures`,
`trajectories`, `step_views` (for pages). Written: `claims_table` (`claims_page`, `ledger_commits`),
`publish`, and `pages` from `results_page` (`published`, `others_page`), `models_page` and `performance_page`.
May import all folders but `cli`; `cli` and notebooks import it.
"""
