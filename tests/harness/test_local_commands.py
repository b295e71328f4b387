"""WikiText-2 from a local folder by the shell, scored by a published protocol."""

import json
import math
from pathlib import Path

import pytest
from public_formats import write_both

from sinkprune_companion.cli import main
from sinkprune_companion.harness.local_data import running_text, wikitext
from sinkprune_core.evaluation.conditional_likelihood import perplexity
from sinkprune_core.evaluation.protocols import PROTOCOLS, Protocol


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_both(tmp_path / "data")


@pytest.fixture
def model(tiny_ar, tiny_dlm, tmp_path):
    """A function that saves a tiny model of a kind and returns its folder."""

    def save(kind: str) -> str:
        lm = tiny_ar if kind == "autoregressive" else tiny_dlm
        return str(lm.save(tmp_path / kind))

    return save


def shell(out: Path, *arguments: object) -> list[dict]:
    """Run `sinkprune evaluate` and return the rows that it writes."""
    asked = [str(part) for part in ("evaluate", *arguments, "--dtype", "float32", "--json", out)]
    assert main.main(asked) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
def test_the_shell_scores_a_running_text_by_a_published_protocol(
    kind, model, tiny_ar, tiny_dlm, folder, tmp_path, monkeypatch
):
    how = Protocol("count", draws=2, grid=1, chunk=4, context=8)
    monkeypatch.setitem(PROTOCOLS, "main_llada", how)
    lm = tiny_ar if kind == "autoregressive" else tiny_dlm
    flags = (model(kind), "--text", "wikitext-2", "--data", folder, "--protocol", "main_llada")
    ids_T = lm.encode(running_text(wikitext(folder)))
    [row] = shell(tmp_path / "whole.json", *flags)
    expected = perplexity(lm, ids_T, how)
    assert row["nats"] == pytest.approx(expected.nats, rel=1e-4)
    assert row["sequences"] == len(how.windows(ids_T)) == expected.sequences
    [row] = shell(tmp_path / "part.json", *flags, "--limit", 3)
    assert row["sequences"] == 3 and row["tokens"] == 12
    assert row["perplexity"] == pytest.approx(math.exp(row["nats"]))
    assert row["nats"] == pytest.approx(perplexity(lm, ids_T[:17], how).nats, rel=1e-4)
