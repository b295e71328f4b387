"""The folder of a run belongs to one base and to its data; what it exports lies apart."""

import json
import re
import shutil

import pytest
from damage import flip
from random_models.cases import CASES
from random_models.texts import LEARN
from random_models.writing import write
from safetensors.torch import load_file, save_file

from sinkprune.cli.main import main
from sinkprune_companion.training import lora
from sinkprune_companion.training.crops import prepare_data, write_data
from sinkprune_companion.training.lora import train

# a run belongs to one base


def weights(folder) -> None:
    file = next(folder.glob("*.safetensors"))
    tensors = {name: 1.01 * value for name, value in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def vocabulary(folder) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    known = content["model"]["vocab"]
    known["word30"], known["word31"] = known["word31"], known["word30"]
    file.write_text(json.dumps(content))


def rotary(folder) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_theta": 50_000.0}))


@pytest.fixture
def base(tmp_path):
    """The folder of a tiny Llama."""
    folder = tmp_path / "base"
    write(CASES["llama"], folder)
    return folder


@pytest.mark.parametrize("change", [weights, vocabulary, rotary])
def test_a_run_does_not_go_on_with_another_base(change, base, short, tmp_path):
    config = short(base=str(base), mask_token="71", dtype="float32")
    run = tmp_path / "run"
    train(config, run, text=LEARN)
    kept = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    change(base)
    with pytest.raises(ValueError, match=r"another run .base: .* there, .* here"):
        train(short(base=str(base), mask_token="71", dtype="float32", tokens=128), run, text=LEARN)
    assert kept == {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}


def test_a_run_goes_on_with_a_copy_of_its_base(base, short, tmp_path):
    config = short(base=str(base), mask_token="71", dtype="float32")
    run = tmp_path / "run"
    train(config, run, text=LEARN)
    shutil.copytree(base, tmp_path / "copy")
    shutil.rmtree(base)
    (tmp_path / "copy").rename(base)
    longer = short(base=str(base), mask_token="71", dtype="float32", tokens=128)
    assert train(longer, run, text=LEARN).is_dir()


# its data


@pytest.fixture
def data(tiny_dlm, tmp_path):
    """The file of the data of a run, and a function that reads it."""

    def read():
        return prepare_data(tiny_dlm.tokenizer, tmp_path, False, (8,), LEARN, tiny_dlm.mask_token_id)

    read()
    return tmp_path / "data.safetensors", read


def test_data_that_are_not_what_was_written_are_refused(data):
    file, read = data
    read()
    written = file.read_bytes()

    for place in (-3, -200, len(written) // 2):
        flip(file, place)
        with pytest.raises(ValueError, match=r"data.safetensors is not what was written: use another folder"):
            read()
        file.write_bytes(written)

    for damaged in (b"", written[:-9], written[:30]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"data.safetensors cannot be read"):
            read()


def test_data_of_another_vocabulary_or_without_a_digest_are_refused(data, tiny_dlm):
    file, read = data
    tensors = load_file(file)
    save_file(tensors, file, metadata={"held_out_share": "8", "kind": "crops"})
    with pytest.raises(ValueError, match=r"made with another .* differs in text, vocabulary"):
        read()
    write_data(file, tensors, {"held_out_share": "8", "kind": "crops"})
    with pytest.raises(ValueError, match=r"made with another .* differs in text, vocabulary"):
        read()


def test_a_text_that_spells_the_mask_has_its_letters_and_not_the_mask(tiny_dlm, tmp_path):
    mask = tiny_dlm.tokenizer.convert_ids_to_tokens(tiny_dlm.mask_token_id)
    text = LEARN.replace("word20 ", f"{mask} ")
    plain, spelt = (
        prepare_data(tiny_dlm.tokenizer, tmp_path / name, False, (8,), text, mask_token_id)[0]["text"]
        for name, mask_token_id in (("plain", None), ("spelt", tiny_dlm.mask_token_id))
    )
    assert (plain == tiny_dlm.mask_token_id).any(), "the control: without being told, masks stand in the data"
    assert not (spelt == tiny_dlm.mask_token_id).any()


# what it exports lies apart


@pytest.mark.parametrize(
    ("folder", "export"), [("out", "out"), ("out", "out/x"), ("out/x", "out"), ("./out", "other/../out")]
)
def test_an_export_into_the_run_is_refused_before_training(folder, export, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lora, "train", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "other").mkdir()
    assert main(["train", "--folder", folder, "--export", export]) == 1
    assert "--export" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


# settings that cannot be meant


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 1e300),
        ("learning_rate", 0),
        ("rank", 10**20),
        ("seed", 10**30),
        ("seed", -1),
        ("tokens", 10**18),
        ("batch_tokens", 10**12),
    ],
)
def test_numbers_that_no_training_can_use_are_refused_by_name(field, value, short):
    with pytest.raises(ValueError, match=re.escape(f"{field}={value} must be ")):
        short(**{field: value})
