"""A short run of every group of bad files of models, of models in odd states and of bad arguments."""

from importlib.util import module_from_spec, spec_from_file_location

import pytest
from hostile import arguments, fuzz, states, threads
from hostile.fuzz_models import GROUPS
from hostile.tally import HELD, REFUSED, Tally

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("group", GROUPS)
def test_no_bad_input_breaks_anything(group, tmp_path, monkeypatch):
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))
    tally = Tally()
    cases, every = GROUPS[group]
    fuzz.run(tally, group, cases(tmp_path), every)
    assert not tally.broken, tally.table()
    assert tally.counts[group][REFUSED] + tally.counts[group][HELD] >= 3


MODULE = """
def said():
    raise ValueError("in words")


def broken():
    raise ValueError(f"with {len(None)} words")
"""


def test_words_of_ours_are_what_a_statement_of_ours_raises(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(MODULE)
    spec = spec_from_file_location("sinkprune.module", file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)

    file.write_text(f"\n\n\n{MODULE}")  # somebody edits it meanwhile
    with pytest.raises(ValueError, match="in words") as said:
        module.said()
    with pytest.raises(TypeError, match="has no len") as broken:
        module.broken()

    assert fuzz.has_words_of_ours(said.value)
    assert not fuzz.has_words_of_ours(broken.value)


MEMORY = {  # by the name that the table has: the cases, and each so many-th of them that the short run takes
    "odd states of a Llama": (states.GROUPS["odd states of a Llama"], 131),
    "odd states of a GPT-2": (states.GROUPS["odd states of a GPT-2"], 41),
    "two threads on one model": (threads.threads, 37),
    "arguments of other types": (arguments.arguments, 131),
}


@pytest.mark.parametrize("group", MEMORY)
def test_nothing_that_functions_are_given_breaks_anything(group, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a text in the place of a folder names one here
    tally = Tally()
    cases, every = MEMORY[group]
    fuzz.run(tally, group, cases(tmp_path), every)
    assert not tally.broken, tally.table()
    assert tally.counts[group][REFUSED] + tally.counts[group][HELD] >= 3
