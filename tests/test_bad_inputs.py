"""A short run of every group of bad inputs, and proof that a defect put in on purpose is found."""

from itertools import islice

import pytest
from hostile import fuzz, fuzz_groups
from hostile.fuzz import judge
from hostile.tally import BROKE, HELD, REFUSED, Tally

from sinkprune_companion.ledger import claims
from sinkprune_companion.run import parameters, records
from sinkprune_core.models import adapters, reader, weight_files
from sinkprune_core.models.weight_files import read_json

SHORT = {
    "weights": 60,
    "cards of saved models": 6,
    "configurations": 400,
    "rotary frequencies": 12,
    "indices and shards": 30,
    "tokenizers": 40,
    "the hub's cache": 15,
    "adapters": 60,
    "records": 10,
    "findings": 1,
    "ledger of claims": 3,
    "numbers of settings": 1,
    "parameters of notebooks": 1,
    "functions of users": 5,
    "activations that overflow": 25,
    "ids of other models": 30,
    "local data": 8,
    "archives of records": 6,
    "runs to publish": 4,
    "values below the smallest": 1,
}  # of a group's cases, each so many-th


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("SINKPRUNE_CACHE", str(tmp_path / "own-cache"))


def tally_of(group: str, root, every: int) -> Tally:
    tally = Tally()
    fuzz.run(tally, group, fuzz_groups.GROUPS[group](root), every)
    return tally


@pytest.mark.parametrize("group", fuzz_groups.GROUPS)
def test_no_bad_input_breaks_anything(group, tmp_path):
    tally = tally_of(group, tmp_path, SHORT[group])
    assert not tally.broken, tally.table()
    assert tally.counts[group][REFUSED] + tally.counts[group][HELD] >= 3


def no_digests(monkeypatch):
    monkeypatch.setattr(weight_files, "check_digest", lambda *_: None)


def no_fields(monkeypatch):
    monkeypatch.setattr(reader, "check_fields", lambda *_: None)


def no_card(monkeypatch):
    monkeypatch.setattr(reader, "read_checked", lambda cls, file: cls.model_construct(**read_json(file)))


def no_index(monkeypatch):
    def unchecked(folder):
        return read_json(folder / weight_files.INDEX).get("weight_map")

    monkeypatch.setattr(weight_files, "_index", unchecked)


def no_shapes(monkeypatch):
    from peft import PeftModel

    def unchecked(model, folder, trainable=False):
        return PeftModel.from_pretrained(model, folder)

    monkeypatch.setattr(adapters, "open_adapter", unchecked)


def whole_records(monkeypatch):
    monkeypatch.setattr(records, "_is_whole", lambda file: file.exists())


def unchecked_entries(monkeypatch):
    monkeypatch.setattr(claims, "_checked", lambda check, values, where: values)


def unchecked_parameters(monkeypatch):
    monkeypatch.setattr(parameters, "check", lambda *_: None)


@pytest.mark.parametrize(
    ("group", "defect", "every"),
    [
        ("weights", no_digests, 5),
        ("configurations", no_fields, 100),
        ("rotary frequencies", no_fields, 5),
        ("cards of saved models", no_card, 2),
        ("indices and shards", no_index, 5),
        ("adapters", no_shapes, 15),
        ("records", whole_records, 10),
        ("findings", unchecked_entries, 3),
        ("ledger of claims", unchecked_entries, 5),
        ("parameters of notebooks", unchecked_parameters, 50),
    ],
)
def test_a_defect_put_in_on_purpose_is_found(group, defect, every, tmp_path, monkeypatch):
    defect(monkeypatch)
    cases = islice(fuzz_groups.GROUPS[group](tmp_path), 0, None, every)
    assert any(judge(case)[0] == BROKE for case in cases)
