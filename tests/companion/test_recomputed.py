import json

import recompute


def test_the_numbers_of_the_protocol_come_out_of_the_archive_by_other_code():
    root = recompute.ROOT
    file = root / "figures" / "findings" / "03_leaving_sinks_out.json"
    published = json.loads(file.read_text(encoding="utf-8"))["findings"]
    found = recompute.recomputed(root / "figures" / "records-full.tar.xz")

    # every loss and answer of the protocol but the dense model's own, and what is not a difference of two
    expected = {name for name in published if "wikitext" in name and "length" not in name}
    left_out = {"dense_loss_wikitext", "paper_minus_wanda_growth_wikitext"}
    left_out |= {name for name in published if name.endswith("_wikitext_131072") and "minus" not in name}
    assert expected - found.keys() == left_out

    assert recompute.differing(found, published) == []


def test_another_number_is_seen():
    found = {"a": {"value": 1.0, "low": 0.5}}
    assert recompute.differing(found, {"a": {"value": 1.0, "low": 0.5}}) == []
    assert len(recompute.differing(found, {"a": {"value": 1.0, "low": 0.5 + 1e-6}})) == 1
    assert len(recompute.differing(found, {})) == 2
