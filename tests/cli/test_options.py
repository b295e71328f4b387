"""Options are checked before any work: ranges, combinations that do nothing, misspelt words, files."""

import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from sinkprune.cli import main
from sinkprune.cli.main import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prune m --out x --sequences=-1", "--sequences"),
        ("prune m --out x --length 1", "--length"),
        ("prune m --out x --sparsity 1", "--sparsity"),
        ("prune m --out x --sparsity nan", "--sparsity"),
        ("compare m n --margin 0", "--margin"),
        ("trace m --prompt 1", "--prompt"),
        ("trace smol-dlm --block 30", "--block"),
        ("trace smol-dlm --block 16 --steps 30", "--steps"),
        ("train --lengths 64,1", "lengths"),
        ("train --lengths 64,4096", "batch_tokens"),
        ("train --lengths a,b", "--lengths"),
    ],
)
def test_a_number_outside_its_range_is_refused_by_name(line, said, refused):
    assert said in refused(*line.split())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prune m", "--out is missing"),
        ("prune m --out x --device cpu --device-map auto", "--device cpu does nothing here"),
        ("prune m --out x --preset magnitude --seed 3", "--seed 3 does nothing here"),
        ("prune m --out x --masked", "--masked does nothing here"),
        ("prune m --out x --work x/y", "--work x/y lies in --out x"),
        ("trace m --figure x.txt", "--figure"),
        ("trace m --length 12", "--length"),
        ("evaluate m --limit 3", "--limit 3 does nothing here"),
        ("evaluate m --split test", "--split test does nothing here"),
        ("evaluate m --tasks suite --sequences 9", "--sequences 9 does nothing here"),
        ("evaluate m --tasks suite --protocol ppl_llada", "--protocol ppl_llada does nothing here"),
        ("evaluate m --protocol ppl_llada", "--protocol ppl_llada scores a running text"),
        ("evaluate m --protocol ppl_llda", 'Did you mean "ppl_llada"?'),
        ("evaluate m --include-path .", "--include-path . does nothing here"),
        ("evaluate m --tasks blimp --data d --include-path .", "--include-path . does nothing here"),
        ("generate m", "--prompt"),
        ("evaluate m --tasks ,", "--tasks , names no task"),
        ("train --rank 3 --from-scratch", "--rank 3 does nothing here"),
        ("train --wikitext", "--wikitext does nothing here"),
    ],
)
def test_options_that_contradict_each_other_or_do_nothing_are_refused(line, said, refused):
    assert said in refused(*line.split())


# names


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("smol-dlmm", "unknown model 'smol-dlmm'; did you mean smol-dlm"),
        ("llada-8b-base", "did you mean GSAI-ML/LLaDA-8B-Base"),
        ("zzz", "unknown model 'zzz'; known names: smol-"),
    ],
)
def test_an_unknown_model_gets_the_nearest_names(model, said, refused):
    found = refused("evaluate", model)
    assert said in found
    assert found.count("/") < 6, "no list of all models"


# files


def test_a_missing_text_is_named(model, tmp_path, refused):
    for wrong in (tmp_path / "gone.txt", tmp_path):
        said = refused("evaluate", model, "--text", wrong)
        assert str(wrong) in said and "--text" in said


OUTPUTS = [
    ("prune", "--out"),
    ("trace", "--out"),
    ("trace", "--json"),
    ("trace", "--figure"),
    ("evaluate", "--json"),
    ("train", "--export"),
]


@pytest.mark.parametrize(("name", "option"), OUTPUTS)
def test_nothing_is_overwritten_and_an_output_that_cannot_be_written_is_found_out_first(
    name, option, model, tmp_path, refused, no_model
):
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"taken")

    places = [taken, taken / "below.png", tmp_path / "gone" / "deep" / "t.png"]
    places.append(tmp_path / ("n" * 245 + ".png"))  # a name that exists, but not with a suffix
    for place in places:
        said = refused(name, model, option, place)
        assert option in said and str(place) in said
        assert "choose another" in said

    assert taken.read_bytes() == b"taken"
    assert {file.name for file in tmp_path.iterdir()} == {"llada", "text.txt", "taken.png"}


@pytest.mark.parametrize(
    "options",
    [
        ("trace", "--out", "{loop}/a"),
        ("trace", "--out", "{loop}"),
        ("prune", "--out", "{loop}/a", "--work", "w"),
        ("prune", "--out", "a", "--work", "{loop}"),
        ("prune", "--out", "a", "--text", "wikitext-2", "--data", "{loop}"),
        ("evaluate", "--text", "{loop}"),
        ("evaluate", "--tasks", "wikitext", "--data", "{loop}"),
    ],
)
def test_a_link_that_leads_to_itself_is_one_sentence(options, model, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    name, *rest = (part.format(loop=loop) for part in options)
    assert str(loop) in refused(name, model, *rest)


def test_a_cache_that_leads_to_itself_is_one_sentence(model, tmp_path, refused, monkeypatch):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    monkeypatch.setenv("SINKPRUNE_CACHE", str(loop))
    assert f"SINKPRUNE_CACHE={loop}" in refused("evaluate", "smol-ar")


# what the pages say


def command_lines() -> list[str]:
    lines = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = file.read_text(encoding="utf-8").replace("\\\n", " ")

        for line in text.splitlines():
            if line.startswith("sinkprune "):
                lines.append(line.partition("#")[0].strip())  # noqa: PERF401
    return lines


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_every_command_line_of_the_pages_can_be_parsed(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    for option, word in pairwise(words):
        if option == "--text":
            (tmp_path / word).touch()
        elif option == "--include-path":
            (tmp_path / word).mkdir()

    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert bound.args or bound.kwargs or command.__name__ in words


def test_names_may_be_given_with_commas_or_one_by_one(monkeypatch):
    given = []
    publish = "sinkprune_companion.pages.publish.publish"
    monkeypatch.setattr(publish, lambda profile, notebooks: given.append(notebooks) or [])
    assert main.main(["publish", "--notebooks", "a,b,c"]) == 0
    assert main.main(["publish", "--notebooks", "a,b", "--notebooks", "c"]) == 0
    assert given == [("a", "b", "c")] * 2
