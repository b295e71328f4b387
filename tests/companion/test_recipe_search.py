"""Recipes of notebooks 06 and 07: every combination once, on as many tokens."""

import pytest

from sinkprune_companion.experiments import recipe_search

TOKENS = 16  # in sequences
PARTS = {
    "factorial": recipe_search.factorial(0.75, TOKENS, 8),
    "official": recipe_search.official(0.75, 20, 8),
    "weights": recipe_search.weights(0.75, TOKENS, 8),
    "structured": recipe_search.structured(0.5, 20),
    "schedules": recipe_search.schedules(0.75, 20, 8),
    "candidates": recipe_search.candidates("60", TOKENS, 8),
    "pattern": recipe_search.candidates("2:4", TOKENS, 8),
}


@pytest.mark.parametrize("part", PARTS)
def test_names_are_different_and_rows_as_many_as_can_be(part):
    rows = PARTS[part]
    assert len({row.variant for row in rows}) == len({row.recipe for row in rows}) == len(rows)
    tokens = 20 if part in ("official", "structured", "schedules") else TOKENS
    for row in rows:
        states = row.recipe.noise_levels if row.recipe.inputs == "noised" else 1
        assert tokens - states < row.sequences * states <= tokens


def test_a_row_says_where_it_prunes():
    places = {part: {row.place for row in rows} for part, rows in PARTS.items()}
    assert places["candidates"] == {"60 %"} and places["pattern"] == {"2:4"}
    patterns = {part: {row.pattern for row in rows} for part, rows in PARTS.items()}
    assert patterns["structured"] == {"structured"} and patterns["pattern"] == {"2:4"}
    assert patterns["official"] == patterns["factorial"] == {"unstructured"}
