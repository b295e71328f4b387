"""A pruned model is recovered in memory and from folder to folder; kills and bad inputs cost nothing."""

import copy
import dataclasses
import errno
import json
import re
import resource
from contextlib import contextmanager
from importlib.metadata import version

import pytest
import torch
from datasets import Dataset

from sinkprune import load, score
from sinkprune.models.saving import save
from sinkprune.models.shrinking import shrink
from sinkprune.recovery import trainer, training
from sinkprune.recovery.checkpoint import remove_work
from sinkprune.recovery.objectives import exercise, loss_of
from sinkprune.recovery.recover import recover
from sinkprune.recovery.settings import Recovery
from sinkprune.recovery.text import TrainingText, training_text
from sinkprune.recovery.trainable import in_float32
from sinkprune.recovery.training import recover_model
from sinkprune.runs import memory_and_disk, work_folder
from sinkprune.runs.memory_and_disk import Needs
from sinkprune_core import preset, prune
from sinkprune_core.seeds import generator

SHORT = {"steps": 6, "batch": 4, "length": 12, "learning_rate": 3e-3, "warmup": 0.2}


def same(before, after) -> bool:
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_loss_falls_and_zeros_stay(make_pruned, words, zeros, kind, method, checkpointing):
    lm = make_pruned(kind)
    before = zeros(lm)

    settings = Recovery(**SHORT | {"steps": 30}, method=method, rank=4, gradient_checkpointing=checkpointing)
    done = recover_model(lm, settings, words, progress=False)

    assert done.after < done.before - 0.1
    assert same(before, zeros(lm)) and done.zeros_before == done.zeros_after > 0
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert not any("lora" in name for name, _ in lm.model.named_parameters())
    assert lm.model.config._attn_implementation == "sdpa"


def test_memory_that_ends_while_parameters_become_float32_leaves_no_mixed_model(tiny_dlm, monkeypatch):
    lm = tiny_dlm
    lm.model.to(torch.bfloat16)
    widened = []

    def float_until_full(tensor: torch.Tensor) -> torch.Tensor:
        if len(widened) == 3:
            raise torch.OutOfMemoryError
        widened.append(tensor)
        return tensor.to(torch.float32)

    monkeypatch.setattr(torch.Tensor, "float", float_until_full)
    with pytest.raises(torch.OutOfMemoryError), in_float32(lm):
        pytest.fail("the block was entered")

    assert {parameter.dtype for parameter in lm.model.parameters()} == {torch.bfloat16}


def test_2_4_and_bfloat16(make_pruned, words, zeros):
    lm = make_pruned(name="wanda", pattern="2:4")
    lm.model.to(torch.bfloat16)
    before = zeros(lm)
    done = recover_model(lm, Recovery(**SHORT, dtype="bfloat16"), words, progress=False)
    assert same(before, zeros(lm)) and done.after < done.before
    assert {parameter.dtype for parameter in lm.model.parameters()} == {torch.bfloat16}


def test_a_structured_model_is_trained_whole(make_lm, calibration, words):
    lm = make_lm("diffusion", "gqa-24")
    lm = shrink(lm, prune(lm, preset("structured", sparsity=0.3), calibration).kept_units)
    shapes = [parameter.shape for parameter in lm.model.parameters()]
    done = recover_model(lm, Recovery(**SHORT), words, progress=False)
    assert done.after < done.before and done.zeros_after == done.zeros_before == 0
    assert [parameter.shape for parameter in lm.model.parameters()] == shapes


def test_gradient_checkpointing_computes_blocks_twice_and_changes_no_number(make_pruned, words):
    found = []

    for checkpointing in (False, True):
        lm = make_pruned()
        calls = []
        lm.blocks[1].mlp.register_forward_pre_hook(
            lambda *_, calls=calls: calls.append(torch.is_grad_enabled())
        )

        settings = Recovery(**SHORT, gradient_checkpointing=checkpointing)
        done = recover_model(lm, settings, words, progress=False)
        found.append((done.after, sum(calls)))

    (plain, forwards), (checkpointed, more_forwards) = found

    assert plain == checkpointed
    assert (forwards, more_forwards) == (6, 12)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", ["llama-gqa", "gpt2"])
def test_after_gradient_checkpointing_a_model_is_as_before(make_family, words, family, method):
    """GPT-2's dropout is on in its configuration, as published."""
    lm = make_family(family, "autoregressive")
    lm.model.requires_grad_(False)
    config = lm.model.config.to_dict()
    assert family != "gpt2" or config["resid_pdrop"] == 0.1

    found = []
    for checkpointing in (False, True):
        copied = dataclasses.replace(lm, model=copy.deepcopy(lm.model))
        settings = Recovery(**SHORT | {"steps": 2}, method=method, gradient_checkpointing=checkpointing)
        found.append(recover_model(copied, settings, words, progress=False).after)

        assert copied.model.config.to_dict() == config
        assert not copied.hidden(words.held_out_NT[:1]).requires_grad
        assert not any(module.training for module in copied.model.modules())
    assert found[0] == found[1]


def test_a_model_that_cannot_be_checkpointed_is_as_before(make_pruned, words):
    lm = make_pruned()
    lm.model.supports_gradient_checkpointing = False
    with pytest.raises(ValueError, match="does not support"):
        recover_model(lm, Recovery(**SHORT, gradient_checkpointing=True), words, progress=False)
    assert lm.model.config._attn_implementation == "sdpa"


# the objective


def test_the_loss_is_the_bound_of_evaluation(make_pruned, words):
    """Written out: the mean over rows of the mean cross entropy at the masks."""
    lm = make_pruned()
    ids_BT = words.crops(4, 12, 0, 0)
    task = exercise(lm, ids_BT, generator(0, "test"))

    expected = 0.0
    logits_BTV = lm.model(task.input_BT).logits.log_softmax(-1)
    for row, where_T in enumerate(task.where_BT):
        terms = [-logits_BTV[row, at - 1, ids_BT[row, at]] for at in where_T.nonzero()[:, 0].tolist()]
        expected += sum(terms) / len(terms) / len(ids_BT)

    torch.testing.assert_close(loss_of(lm, task), expected)
    assert not bool(task.where_BT[:, 0].any())


def test_the_divergence_is_that_of_two_distributions(make_pruned, make_lm, words, monkeypatch):
    lm, teacher = make_pruned(), make_lm("diffusion", "gqa-24")
    task = exercise(lm, words.crops(4, 12, 0, 0), generator(0, "test"))
    expected = 0.0
    teacher_NV = teacher.logits_at(task.input_BT, task.where_BT).double().softmax(-1)
    found_NV = lm.logits_at(task.input_BT, task.where_BT).double().softmax(-1)
    for row, weight in enumerate(task.weight_N.tolist()):
        expected += weight * float((teacher_NV[row] * (teacher_NV[row] / found_NV[row]).log()).sum())
    whole = loss_of(lm, task, teacher, 1.0)
    assert float(whole) == pytest.approx(expected, rel=1e-4)
    assert float(loss_of(lm, task, lm, 1.0)) == pytest.approx(0, abs=1e-6)

    half = 0.5 * float(whole) + 0.5 * float(loss_of(lm, task))
    assert float(loss_of(lm, task, teacher, 0.5)) == pytest.approx(half, rel=1e-5)
    monkeypatch.setattr("sinkprune.recovery.objectives.LOGITS_BYTES", 72 * 4 * 5)  # five positions at once
    torch.testing.assert_close(loss_of(lm, task, teacher, 1.0), whole)


def test_a_teacher_is_learned_from(make_pruned, make_lm, words):
    lm, teacher = make_pruned(), make_lm("diffusion", "gqa-24")
    task = exercise(lm, words.crops(8, 12, 5, 0), generator(0, "test"))
    before = float(loss_of(lm, task, teacher, 1.0))
    fingerprint = teacher.fingerprint()
    recover_model(lm, Recovery(**SHORT | {"steps": 30}, distillation=1.0), words, teacher, progress=False)
    assert float(loss_of(lm, task, teacher, 1.0)) < 0.7 * before
    assert teacher.fingerprint() == fingerprint


# kills


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_killed_run_ends_as_an_undisturbed_one(make_pruned, words, tmp_path, monkeypatch, method):
    settings = Recovery(**SHORT, method=method, rank=4)
    whole = make_pruned()
    expected = recover_model(whole, settings, words, progress=False)

    original = trainer.one_step
    for killed_at in (3, 5):

        def die(*arguments, at=killed_at):
            if arguments[-1] == at:
                raise KeyboardInterrupt
            return original(*arguments)

        monkeypatch.setattr(trainer, "one_step", die)
        with pytest.raises(KeyboardInterrupt):
            recover_model(make_pruned(), settings, words, work=tmp_path, save_every=2, progress=False)
    steps = []
    monkeypatch.setattr(trainer, "one_step", lambda *all: (steps.append(all[-1]), original(*all))[1])
    again = make_pruned()
    found = recover_model(again, settings, words, work=tmp_path, save_every=2, progress=False)
    assert steps == [4, 5]
    assert again.fingerprint() == whole.fingerprint()
    assert found.log == expected.log


def test_an_interrupted_model_in_memory_is_whole_again(make_pruned, words, zeros, monkeypatch):
    lm = make_pruned()
    before = zeros(lm)
    names = [name for name, _ in lm.model.named_parameters()]

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "one_step", die)
    for method in ("full", "lora"):
        with pytest.raises(KeyboardInterrupt):
            recover_model(lm, Recovery(**SHORT, method=method), words, progress=False)
        assert same(before, zeros(lm))
        assert [name for name, _ in lm.model.named_parameters()] == names


def test_another_run_in_the_work_folder_is_refused(make_pruned, words, tmp_path):
    recover_model(make_pruned(), Recovery(**SHORT), words, work=tmp_path, progress=False)
    other = Recovery(**SHORT | {"learning_rate": 1e-3}, seed=1)
    with pytest.raises(ValueError, match=r"another run \(learning_rate: 0.003 there, 0.001 here; seed"):
        recover_model(make_pruned(), other, words, work=tmp_path, progress=False)


@pytest.mark.parametrize("package", ["torch", "transformers", "sinkprune"])
def test_a_run_goes_on_with_the_same_versions_alone(make_pruned, words, tmp_path, monkeypatch, package):
    recover_model(make_pruned(), Recovery(**SHORT), words, work=tmp_path, progress=False)
    monkeypatch.setattr(work_folder, "version", lambda name: "0.1" if name == package else version(name))
    there = re.escape(version(package))
    with pytest.raises(ValueError, match=rf"another run \({package}: {there} there, 0.1 here"):
        recover_model(make_pruned(), Recovery(**SHORT), words, work=tmp_path, progress=False)


def content(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


FOREIGN = {
    "a text": {"thesis.txt": "years"},
    "another's states": {"step-00000001.safetensors": "weights"},
    "another's marker": {"state.json": "{}", "thesis.txt": "years"},
    "broken marker": {"state.json": "half", "step-00000001.safetensors": "weights"},
    "work of prune": {"work.json": "{}"},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_a_work_folder_of_others_is_refused_before_any_work(folder, documents, tmp_path, monkeypatch, files):
    work = tmp_path / "theirs"
    work.mkdir()
    for name, text in files.items():
        (work / name).write_text(text)
    before = content(work)

    monkeypatch.setattr("sinkprune.recovery.recover.without_weights", lambda *_: pytest.fail("opened"))
    with pytest.raises(ValueError, match=r"choose another work folder"):
        recover(folder, out=tmp_path / "out", steps=1, text=documents, work=work, **_short())

    with pytest.raises(ValueError, match=r"choose another work folder"):
        recover_model(load(folder), Recovery(**SHORT), _words(), work=work, progress=False)
    assert content(work) == before


def _words():
    ids_T = torch.arange(200) % 50 + 20
    return TrainingText((ids_T,), ids_T[:96].view(8, 12))


def test_a_run_that_kept_no_state_stands_in_nobody_s_way(make_pruned, words, tmp_path, monkeypatch):
    """Its memory was too small, say, and the next one takes a smaller batch."""

    def die(*_):
        raise MemoryError

    with monkeypatch.context() as patches:
        patches.setattr(trainer, "one_step", die)
        with pytest.raises(MemoryError):
            recover_model(make_pruned(), Recovery(**SHORT), words, work=tmp_path, progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]

    smaller = Recovery(**SHORT | {"batch": 2})
    assert recover_model(make_pruned(), smaller, words, work=tmp_path, progress=False).settings.batch == 2


def test_a_model_or_a_file_is_no_work_folder(folder, documents, tmp_path):
    run = {"out": tmp_path / "out", "steps": 1, "text": documents, **_short()}
    before = content(folder)
    with pytest.raises(ValueError, match=r"pruned is not a work folder .* config.json"):
        recover(folder, work=folder, **run)
    assert content(folder) == before

    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"file is a file: choose another folder"):
        recover(folder, work=tmp_path / "file", **run)


@pytest.mark.parametrize(
    ("work", "out", "message"),
    [
        ("a", "a", "are one folder"),
        ("a", "b/../a", "are one folder"),
        ("a/b", "a", "lie in one another"),
        ("a", "a/b", "lie in one another"),
    ],
)
def test_work_and_out_lie_beside_one_another(folder, documents, tmp_path, work, out, message):
    there = content(tmp_path)
    for dry_run in (False, True):
        with pytest.raises(ValueError, match=message):
            recover(
                folder,
                out=tmp_path / out,
                work=tmp_path / work,
                steps=1,
                text=documents,
                dry_run=dry_run,
                **_short(),
            )
    assert content(tmp_path) == there


def test_the_end_of_a_run_removes_what_it_wrote_alone(make_pruned, words, tmp_path):
    """A file that somebody has put into its work folder meanwhile stays."""
    work = tmp_path / "work"
    for others in (["thesis.txt", "step-1.safetensors"], []):
        recover_model(make_pruned(), Recovery(**SHORT), words, work=work, save_every=1, progress=False)
        for name in others:
            (work / name).write_text("years")
        remove_work(work)
        assert sorted(file.name for file in work.glob("*")) == sorted(others)
        for name in others:
            (work / name).unlink()
    assert not work.exists()


def test_a_damaged_checkpoint_is_refused(make_pruned, words, tmp_path):
    recover_model(make_pruned(), Recovery(**SHORT), words, work=tmp_path, progress=False)
    (file,) = tmp_path.glob("step-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not what was saved"):
        recover_model(make_pruned(), Recovery(**SHORT), words, work=tmp_path, progress=False)


def edited(file, change) -> None:
    state = json.loads(file.read_text())
    change(state)
    file.write_text(json.dumps(state))


EDITS = {
    "another step": lambda state: state["progress"].update(step=5),
    "another log": lambda state: state["progress"]["log"][0].update(held_out=1.0),
    "no step": lambda state: state["progress"].pop("step"),
    "no identity": lambda state: state.pop("identity"),
    "no digest of the weights": lambda state: state.pop("sha256"),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_an_edited_marker_is_refused_with_a_way_out(make_pruned, words, tmp_path, change):
    recover_model(make_pruned(), Recovery(**SHORT), words, work=tmp_path, progress=False)
    edited(tmp_path / "state.json", change)
    before = content(tmp_path)
    with pytest.raises(ValueError, match=r"state.json .* remove .* to begin anew"):
        recover_model(make_pruned(), Recovery(**SHORT), words, work=tmp_path, progress=False)
    assert content(tmp_path) == before


# from folder to folder


@pytest.fixture
def folder(make_pruned, calibration, make_lm, tmp_path):
    lm = make_lm("diffusion", "gqa-24")
    report = prune(lm, preset("wanda", sparsity=0.5), calibration)
    save(lm, tmp_path / "pruned", {"sinkprune-linears.csv": "layer\n"}, **report.card())
    return tmp_path / "pruned"


@pytest.fixture
def documents(make_ids):
    """Paragraphs of words, some of which are held out."""
    rows = make_ids(60, 12, seed=4).tolist()
    return [" ".join(f"word{index}" if index > 26 else "the" for index in row) for row in rows]


def test_a_folder_becomes_a_recovered_folder(folder, documents, zeros, tmp_path):
    out = tmp_path / "out"

    done = recover(folder, out=out, tokens=200, text=documents, **_short(), progress=False)
    assert done.settings.steps == 5  # of 48 tokens

    pruned, recovered = load(folder), load(out)
    assert same(zeros(pruned), zeros(recovered))
    assert pruned.fingerprint() != recovered.fingerprint()

    card = json.loads((out / "sinkprune.json").read_text())
    before = json.loads((folder / "sinkprune.json").read_text())
    assert card["recipe"] == before["recipe"] and card["recovery"]["tokens"] == 240
    assert card["recovery"]["held_out_after"] == done.after

    assert "240 tokens of text (documents given from Python) in 5 steps" in (out / "README.md").read_text()
    assert (out / "sinkprune-linears.csv").read_text() == "layer\n"
    assert not (tmp_path / "out.work").exists()


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_losses_on_the_card_are_those_of_what_was_and_is_saved(
    make_pruned, documents, tmp_path, kind, method, dtype
):
    lm = make_pruned(kind)
    lm.model.to(dtype)
    save(lm, tmp_path / "pruned")
    run = _short() | {"steps": 3, "text": documents, "method": method, "dtype": "float32"}
    recover(tmp_path / "pruned", out=tmp_path / "out", **run, progress=False)

    card = json.loads((tmp_path / "out" / "sinkprune.json").read_text())["recovery"]
    assert card["saved"] == str(dtype).removeprefix("torch.")

    held_out_NT = training_text(lm.tokenizer, documents, 12, lm.mask_token_id).held_out_NT
    stated = {"pruned": card["held_out_before"], "out": card["held_out_after"]}
    for name, loss in stated.items():
        assert {value.dtype for value in load(tmp_path / name, dtype).model.parameters()} == {dtype}
        found = load(tmp_path / name, torch.float32)  # in which the products are computed
        scores = score(found, held_out_NT, training.DRAWS, seed=0, batch=run["batch"])
        assert scores.value.mean() == pytest.approx(loss, abs=1e-7)
    assert stated["pruned"] != stated["out"]


CHANGED = {
    "configuration": ("config.json", {"rope_parameters": {"rope_theta": 77.0, "rope_type": "default"}}),
    "how outputs are read": ("sinkprune.json", {"logits_shifted": False}),
    "card": ("sinkprune.json", {"recipe": {"sparsity": 0.4}}),
}


@pytest.mark.parametrize(("file", "change"), CHANGED.values(), ids=CHANGED)
def test_a_killed_recovery_does_not_go_on_with_another_model(
    folder, documents, tmp_path, monkeypatch, file, change
):
    run = {"out": tmp_path / "out", "steps": 3, "text": documents, **_short(), "progress": False}
    with monkeypatch.context() as patches:
        patches.setattr("sinkprune.recovery.recover.save_model", _die)
        with pytest.raises(KeyboardInterrupt):
            recover(folder, **run)

    edited(folder / file, lambda stated: stated.update(change))
    with pytest.raises(
        ValueError, match=r"holds another run \((card|settings): .* or remove it to begin anew"
    ):
        recover(folder, **run)


def _die(*_, **__):
    raise KeyboardInterrupt


BAD_CARDS = {
    "made_from": {"made_from": ["a model"]},
    "given": {"made_from": {"given": 7}},
    "sparsity": {"sparsity": "half"},
    "prunable_weights": {"prunable_weights": -1},
    "mine": {"mine": float("nan")},
}


@pytest.mark.parametrize(("field", "change"), BAD_CARDS.items(), ids=BAD_CARDS)
def test_a_card_that_cannot_be_saved_again_is_refused_before_training(
    folder, documents, tmp_path, monkeypatch, field, change
):
    edited(folder / "sinkprune.json", lambda card: card.update(change))
    monkeypatch.setattr(trainer, "one_step", lambda *_: pytest.fail("trained"))
    for teacher in ("auto", None):
        run = {"steps": 1, "text": documents, "teacher": teacher, **_short(), "progress": False}
        with pytest.raises((ValueError, TypeError), match=field):
            recover(folder, out=tmp_path / "out", **run)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()


def test_every_recovery_stays_on_the_card(folder, documents, tmp_path):
    place = folder
    for name in "abcd":
        run = {"steps": 1, "text": documents, **_short(), "seed": ord(name), "progress": False}
        recover(place, out=tmp_path / name, **run)
        place = tmp_path / name
    card = json.loads((place / "sinkprune.json").read_text())
    seeds = [done["seed"] for done in (*card["recoveries_before"], card["recovery"])]
    assert seeds == [ord(name) for name in "abcd"]


def _short():
    return {name: value for name, value in SHORT.items() if name not in ("steps", "warmup")}


def test_a_file_of_paragraphs_is_the_same_text(folder, documents, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(documents))
    models = []
    for name, text in (("a", documents), ("b", file)):
        recover(folder, out=tmp_path / name, steps=2, text=text, **_short(), progress=False)
        models.append(load(tmp_path / name).fingerprint())
    assert models[0] == models[1]


def test_a_data_set_is_the_same_text(folder, documents, tmp_path):
    models = []
    for name, text in (("a", documents), ("b", Dataset.from_dict({"text": documents}))):
        recover(folder, out=tmp_path / name, steps=1, text=text, **_short(), progress=False)
        models.append(load(tmp_path / name).fingerprint())
    assert models[0] == models[1]


def test_what_it_took_is_said(folder, documents, tmp_path):
    done = recover(folder, out=tmp_path / "out", steps=2, text=documents, **_short(), progress=False)
    assert done.core_seconds > 0 and done.memory > 1e8  # a process with torch
    assert str(done).endswith(f"core-minutes, peak memory {done.memory / 1e9:.1f} GB")
    card = json.loads((tmp_path / "out" / "sinkprune.json").read_text())
    assert card["recovery"]["memory"] == done.memory and card["recovery"]["core_seconds"] > 0


def test_a_plan_counts_the_teacher_that_is_there(folder, make_lm, documents, tmp_path):
    """A structured model is smaller than its teacher."""
    save(make_lm("diffusion", "gqa-24", layers=12), tmp_path / "deeper")
    save(make_lm("diffusion", "gqa-24"), tmp_path / "dense")
    plan = {"steps": 2, "text": documents, **_short(), "dtype": "float32", "dry_run": True}
    memory = [recover(folder, teacher=tmp_path / name, **plan).memory for name in ("dense", "deeper")]
    layers = sum(parameter.numel() for parameter in load(tmp_path / "dense").blocks.parameters()) / 3
    assert memory[1] - memory[0] == 9 * layers * torch.float32.itemsize


def test_too_little_memory_is_said_with_the_ways_out_before_a_weight_is_read(
    folder, documents, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory_and_disk, "available_memory", lambda _: 0)
    monkeypatch.setattr("sinkprune.recovery.recover.load", lambda *_: pytest.fail("loaded a model"))
    run = {"steps": 2, "text": documents, **_short(), "out": tmp_path / "out"}
    with pytest.raises(RuntimeError, match=r"lacks memory: .* take a smaller batch, .* method lora"):
        recover(folder, **run)

    said = []
    assert recover(folder, **run, dry_run=True, tell=said.append).memory > 0
    assert "96 tokens in 2 steps; peak memory about" in said[0] and "lacks memory" in said[1]


def test_a_plan_writes_nothing(folder, documents, tmp_path):
    there = sorted(tmp_path.rglob("*"))
    assert isinstance(recover(folder, steps=2, text=documents, **_short(), dry_run=True), Needs)
    assert sorted(tmp_path.rglob("*")) == there


def test_a_full_disk_costs_nothing(folder, documents, tmp_path, monkeypatch):
    arguments = {"steps": 4, "text": documents, **_short(), "progress": False, "save_every": 2}
    recover(folder, out=tmp_path / "whole", **arguments)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr("sinkprune.recovery.model_card.write_readme", full)
        with pytest.raises(OSError, match=r"out cannot be written .*: make room there"):
            recover(folder, out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists() and (tmp_path / "out.work").is_dir()
    with monkeypatch.context() as patches:
        patches.setattr(trainer, "one_step", full)  # which is not needed any more
        recover(folder, out=tmp_path / "out", **arguments)
    assert load(tmp_path / "out").fingerprint() == load(tmp_path / "whole").fingerprint()


@contextmanager
def no_file_beyond(size: int):
    """Let the system refuse this process files larger than `size` bytes."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_no_room_for_a_checkpoint_is_one_sentence_and_costs_the_steps_since_the_last(
    folder, documents, tmp_path, monkeypatch
):
    arguments = {"steps": 4, "text": documents, **_short(), "progress": False, "save_every": 1}
    recover(folder, out=tmp_path / "whole", **arguments)
    original = trainer.one_step

    def die(*all):
        if all[-1] == 2:
            raise KeyboardInterrupt
        return original(*all)

    with monkeypatch.context() as patches:
        patches.setattr(trainer, "one_step", die)
        with pytest.raises(KeyboardInterrupt):
            recover(folder, out=tmp_path / "out", **arguments)
    work = tmp_path / "out.work"
    before = {file.name: file.read_bytes() for file in work.iterdir()}
    (checkpoint,) = work.glob("step-*.safetensors")
    assert checkpoint.name == "step-00000002.safetensors"

    with (
        no_file_beyond(checkpoint.stat().st_size // 2),
        pytest.raises(
            OSError, match=r"step-00000003.safetensors cannot be written .*: make room there"
        ) as full,
    ):
        recover(folder, out=tmp_path / "out", **arguments)
    assert "\n" not in str(full.value) and not (tmp_path / "out").exists()
    assert {file.name: file.read_bytes() for file in work.iterdir()} == before

    steps = []
    monkeypatch.setattr(trainer, "one_step", lambda *all: (steps.append(all[-1]), original(*all))[1])
    recover(folder, out=tmp_path / "out", **arguments)
    assert steps == [2, 3] and not work.exists()
    assert load(tmp_path / "out").fingerprint() == load(tmp_path / "whole").fingerprint()


BAD = {
    "both": ({"tokens": 9, "steps": 1}, ValueError, "give one of them"),
    "none": ({}, ValueError, "give one of them"),
    "length": ({"steps": 1, "length": 1}, ValueError, "length=1 must be at least 2"),
    "method": ({"steps": 1, "method": "qlora"}, ValueError, "method='qlora' must be"),
    "rate": ({"steps": 1, "learning_rate": 0.0}, ValueError, "learning_rate=0.0 must be"),
    "large rate": ({"steps": 1, "learning_rate": 1e30}, ValueError, "learning_rate=1e.30 must be"),
    "short": ({"steps": 1, "text": ["the list"]}, ValueError, "too short for sequences of length=12"),
    "empty": ({"steps": 1, "text": []}, ValueError, "empty list"),
    "no file": ({"steps": 1, "text": "nowhere.txt"}, FileNotFoundError, "no such file"),
    "positions": ({"steps": 1, "length": 65}, ValueError, "exceeds the 64 positions"),
    "no text": ({"steps": 1, "text": ["the list", 7]}, ValueError, "document 2 of text is 7: each must be"),
    "token ids": ({"steps": 1, "text": [[1, 2]]}, ValueError, r"document 1 of text is \[1, 2\]: each must"),
    "unknown teacher": (
        {"steps": 1, "teacher": "dense"},
        ValueError,
        "the teacher dense cannot be had: unkn",
    ),
    "no teacher": ({"steps": 1, "distillation": 0.5}, ValueError, "needs a teacher"),
}


@pytest.mark.parametrize(("changes", "error", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(folder, documents, tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        recover(folder, out=tmp_path / "out", **{"text": documents, **_short(), **changes}, progress=False)
    assert not (tmp_path / "out").exists()


PROMISES = {
    "length": ({"length": 65}, r"length=65 exceeds the 64 positions of .*: give at most"),
    "share of no teacher": ({"teacher": None, "distillation": 0.5}, "distillation=0.5 needs a teacher"),
}
TEXTS = {  # which a plan does not read
    "short text": ({"text": ["the list"]}, "too short for sequences of length=12"),
    "chats": ({"text": [[{"role": "user", "content": "the list"}]] * 9}, "chat template"),
}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(("changes", "message"), PROMISES.values(), ids=PROMISES)
def test_what_cannot_be_is_neither_planned_nor_begun(
    folder, documents, tmp_path, monkeypatch, changes, message, dry_run
):
    monkeypatch.setattr("sinkprune.recovery.recover.load", lambda *_: pytest.fail("loaded a model"))
    there = sorted(tmp_path.rglob("*"))
    run = {"out": tmp_path / "out", "steps": 1, "text": documents, **_short(), **changes}
    with pytest.raises(ValueError, match=message):
        recover(folder, dry_run=dry_run, **run)
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize(("changes", "message"), TEXTS.values(), ids=TEXTS)
def test_what_cannot_be_learned_is_refused_before_a_model_is_loaded(
    folder, tmp_path, monkeypatch, changes, message
):
    monkeypatch.setattr("sinkprune.recovery.recover.load", lambda *_: pytest.fail("loaded a model"))
    with pytest.raises(ValueError, match=message):
        recover(folder, out=tmp_path / "out", steps=1, **{**_short(), **changes})
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_another_vocabulary_is_refused(folder, make_family, documents, tmp_path):
    other = make_family("llama-gqa")
    vocabulary = {**other.tokenizer.get_vocab(), "more": 72}
    other = dataclasses.replace(other, tokenizer=_Vocabulary(vocabulary))
    with pytest.raises(ValueError, match="another vocabulary or mask token"):
        training.check_teacher(load(folder), other, 1.0)
    with pytest.raises(ValueError, match="is autoregressive and"):
        training.check_teacher(load(folder), make_family("llama-gqa", "autoregressive"), 1.0)


def test_a_teacher_that_does_not_fit_is_refused_before_a_weight_is_read(
    folder, make_lm, documents, tmp_path, monkeypatch
):
    save(make_lm("autoregressive", "gqa-24"), tmp_path / "teacher")
    monkeypatch.setattr("sinkprune.recovery.recover.load", lambda *_: pytest.fail("loaded a model"))
    for dry_run in (False, True):
        with pytest.raises(ValueError, match="is autoregressive and"):
            recover(
                folder,
                out=tmp_path / "out",
                steps=1,
                text=documents,
                teacher=tmp_path / "teacher",
                dry_run=dry_run,
                **_short(),
            )


class _Vocabulary:
    def __init__(self, vocabulary):
        self.get_vocab = lambda: vocabulary


def test_an_output_that_is_there_is_left_alone(folder, documents, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        recover(folder, out=tmp_path / "out", steps=1, text=documents, **_short())
