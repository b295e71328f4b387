"""The groups of hostile cases that tests have, and the families of the review that they try."""

from hostile import (
    arguments,
    conditions,
    full_disk,
    fuzz_models,
    growth,
    kills,
    options,
    pairs,
    places,
    smallest,
    states,
    threads,
)
from hostile.page import Family

EVERY = (
    *fuzz_models.GROUPS,
    *places.GROUPS,
    *kills.GROUPS,
    *full_disk.GROUPS,
    *conditions.GROUPS,
    pairs.GROUP,
    growth.GROUP,
    smallest.GROUP,
    *states.GROUPS,
    *threads.GROUPS,
    *arguments.GROUPS,
    *options.GROUPS,
)
"""In the order of the table in docs/promises.md."""

FAMILIES = (
    Family("all of them", 4_509, 141 + 177 + 4 + 6, EVERY, "`make hostile`"),
    Family(
        "fields of a recipe that nothing reads",
        48,
        48,
        options.GROUPS,
        "the groups of options, [recipes](../tests/pruning/test_recipe.py)",
    ),
    Family(
        "weights that change during a streamed run",
        4,
        4,
        (),
        "[streamed files](../tests/models/test_streamed_files.py)",
    ),
    Family(
        "weights that are computed from others",
        12,
        12,
        tuple(states.GROUPS),
        "the groups of odd states, [wrap](../tests/models/test_wrap.py)",
    ),
    Family(
        "texts at temperatures beyond float64",
        480,
        21,
        (),
        "[sampling](../tests/diffusion/test_sampling.py)",
    ),
    Family(
        "parameters of notebooks that pass their check",
        14_620,
        92,
        (smallest.GROUP,),
        "the smallest values, [parameters](../tests/companion/test_parameters.py)",
    ),
    Family(
        "bits of parquet without checksums",
        400,
        54,
        ("bits of parquet",),
        "not promised; the group has parquet with checksums",
    ),
)
