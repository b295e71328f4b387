"""Text files of users: their name decides nothing, marks of editors are no text, errors stand alone."""

import torch
from tqdm.auto import tqdm

from sinkprune_companion.cli import inputs, main
from sinkprune_companion.cli.evaluate import EvaluateOptions

TEXT = "\n\n".join(
    " ".join(f"word{20 + (7 * line + 3 * word) % 50}" for word in range(30)) for line in range(20)
)


def drawn(lm, file) -> torch.Tensor:
    """Return the sequences that `evaluate --text FILE` scores."""
    options = EvaluateOptions(model="tiny", text=file, sequences=4, length=12)
    documents = inputs.documents_of(options, held_out=True)
    (ids_NT,) = inputs.sequences_of(lm, options, documents, 12, held_out=True).values()
    return ids_NT


def test_a_copy_of_a_text_gives_the_same_sequences(tiny_dlm, tmp_path):
    file, copy = tmp_path / "a.txt", tmp_path / "a copy.txt"
    for each in (file, copy):
        each.write_text(TEXT)
    assert torch.equal(drawn(tiny_dlm, file), drawn(tiny_dlm, copy))


def test_a_mark_of_byte_order_is_no_text(tiny_dlm, tmp_path):
    file, marked = tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text(TEXT)
    marked.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert torch.equal(drawn(tiny_dlm, file), drawn(tiny_dlm, marked))


def test_an_error_after_a_progress_bar_has_a_line_of_its_own(monkeypatch, capsys):
    """As a terminal shows it: what stands behind a carriage return replaces the line."""

    def fail(options):
        for _ in tqdm(range(3), desc="at work", leave=False):
            raise ValueError("no luck")

    monkeypatch.setattr("sinkprune_companion.cli.evaluate.run", fail)
    assert main.main(["evaluate", "smol-ar"]) == 1
    before, _, last = capsys.readouterr().err.rpartition("\r")
    assert last.splitlines()[-1].startswith("error: ") and "at work" not in last
    assert "at work" in before
