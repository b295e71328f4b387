"""`load` answers in seconds from the cache, in either precision."""

import time

import pytest

from sinkprune_core.models.loading import load


@pytest.mark.parametrize("name", ["smol-ar", "smol-dlm"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_from_the_cache_takes_less_than_ten_seconds(name, dtype, record):
    load(name, dtype)
    begun = time.perf_counter()
    load(name, dtype)
    seconds = time.perf_counter() - begun
    assert record(
        f"seconds to load {name} in {dtype} from the cache", seconds, None, seconds, ("", "here"), at_most=10
    )
