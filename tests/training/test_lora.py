"""Training: a stream addressed by position, a loss that agrees with loops, and runs that can be killed anywhere."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sinkprune_core import corpus
from sinkprune_core.diffusion.sampling import random_mask, stratified_counts
from sinkprune_core.evaluation.likelihood import nll
from sinkprune_core.models import embedded
from sinkprune_core.models.embedded import MASK_TOKEN_ID, merge_adapter
from sinkprune_core.models.language_model import from_folder, load, set_direction
from sinkprune_core.seeds import generator
from sinkprune_core.training import lora
from sinkprune_core.training.export import export
from sinkprune_core.training.lora import (
    Mixture,
    Training,
    _restore,
    _save,
    half_precision,
    masked_cross_entropy,
    next_token_cross_entropy,
    train,
)

SHORT = {
    "tokens": 64,
    "length": 8,
    "batch": 2,
    "rank": 4,
    "alpha": 8,
    "warmup_steps": 1,
    "decay_share": 1.0,
    "samples": 300,
}  # four steps, each with a rate of its own


def with_adapter(model) -> PeftModel:
    torch.manual_seed(0)
    return get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    )


def some_steps(model: PeftModel, optimizer, ids_BT, count: int) -> None:
    for _ in range(count):
        model(ids_BT, labels=ids_BT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def adam(model: PeftModel) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2, betas=(0.9, 0.95)
    )


@pytest.fixture
def prepared(tiny_base, tmp_path, make_ids):
    """The folder of a run whose data are already there; every sequence repeats one word, so that there is much to learn."""
    folder = tmp_path / "run"
    folder.mkdir()
    data = {
        name: make_ids(rows, 1, seed=index).expand(-1, 8).clone()
        for index, (name, rows) in enumerate(
            {
                "train_samples": 40,
                "train_documentation": 30,
                "held_out_samples": 6,
                "held_out_documentation": 6,
            }.items()
        )
    }
    save_file({name: ids_NT.int() for name, ids_NT in data.items()}, folder / "data.safetensors")
    return folder


# the stream


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    start=st.integers(0, 60),
    count=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_a_sequence_depends_on_seed_and_number_alone(sizes, start, count, seed):
    sources = [100 * which + torch.arange(size)[:, None] for which, size in enumerate(sizes)]
    whole = Mixture(sources, seed).batch(0, start + count)
    assert torch.equal(Mixture(sources, seed).batch(start, count), whole[start:])  # a run that starts here
    backwards = Mixture(sources, seed)
    assert [
        backwards.batch(index, 1).item() for index in reversed(range(start + count))
    ] == whole.flatten().tolist()[::-1]


def test_sources_take_turns_and_every_pass_is_a_new_shuffle():
    sources = [torch.arange(5)[:, None], 100 + torch.arange(3)[:, None]]
    stream = Mixture(sources, seed=0).batch(0, 60).flatten()
    assert (stream[0::2] < 100).all() and (stream[1::2] >= 100).all()
    passes = stream[0::2].view(6, 5).tolist()
    assert all(sorted(one) == list(range(5)) for one in passes)
    assert len(set(map(tuple, passes))) > 1
    assert not torch.equal(Mixture(sources, seed=1).batch(0, 60).flatten(), stream)


# the loss


def test_the_loss_equals_a_naive_computation(tiny_dlm, make_ids):
    ids_BT = make_ids(4, 9)
    rng, maskable_T = generator(5), torch.arange(9) > 0
    counts = stratified_counts(4, 8, rng).tolist()
    rows = []
    for row, count in enumerate(counts):
        where_T = random_mask(maskable_T, count, rng)
        logits_TV = tiny_dlm.model(
            torch.where(where_T, MASK_TOKEN_ID, ids_BT[row])[None], use_cache=False
        ).logits[0]
        rows.append(
            sum(
                -float(logits_TV[place - 1].log_softmax(-1)[ids_BT[row, place]])
                for place in range(9)
                if where_T[place]
            )
            / count
        )
    assert masked_cross_entropy(tiny_dlm, ids_BT, generator(5)).item() == pytest.approx(
        sum(rows) / 4, rel=1e-5
    )
    assert masked_cross_entropy(tiny_dlm, ids_BT, generator(6)).item() != pytest.approx(
        sum(rows) / 4, rel=1e-3
    )


def test_the_loss_of_an_untrained_output_is_the_logarithm_of_the_vocabulary(tiny_dlm, make_ids):
    tiny_dlm.model.base_model.norm.weight.zero_()
    assert masked_cross_entropy(tiny_dlm, make_ids(4, 9), generator(0)).item() == pytest.approx(
        torch.tensor(72.0).log().item(), rel=1e-5
    )


# settings


@pytest.mark.parametrize("field", ["tokens", "batch", "rank", "alpha"])
def test_settings_below_1_are_refused(field):
    with pytest.raises(ValueError, match=f"{field}=0 must be at least 1"):
        Training(**{field: 0})


def test_other_settings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="length=1 must be at least 2"):
        Training(length=1)
    with pytest.raises(ValueError, match="kind='encoder' is not one of"):
        Training(kind="encoder")
    with pytest.raises(ValueError, match=r"decay_share=1\.5 must lie in \[0, 1\]"):
        Training(decay_share=1.5)
    with pytest.raises(
        ValueError,
        match=f"samples={corpus.HELD_OUT_SAMPLES} must exceed the {corpus.HELD_OUT_SAMPLES} that are held out",
    ):
        Training(samples=corpus.HELD_OUT_SAMPLES)


def test_the_rate_warms_up_stays_and_falls_to_zero():
    config = Training(tokens=100 * 8, length=4, batch=2, learning_rate=1.0, warmup_steps=10, decay_share=0.2)
    assert config.steps == 100
    rates = [config.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:80] == [1.0] * 70
    assert rates[80:] == pytest.approx([(100 - step) / 20 for step in range(80, 100)])
    assert config.rate(100) == 0


def test_an_optimizer_that_starts_afresh_warms_up_again():
    config = Training(tokens=100 * 8, length=4, batch=2, learning_rate=1.0, warmup_steps=10, decay_share=0.2)
    assert [config.rate(step, begun=40) for step in range(40, 52)] == pytest.approx(
        [(step + 1) / 10 for step in range(10)] + [1.0, 1.0]
    )


def test_steps_cover_all_tokens():
    assert [Training(tokens=tokens, length=4, batch=2).steps for tokens in (1, 8, 9, 16, 17)] == [
        1,
        1,
        2,
        2,
        3,
    ]


def test_inputs_that_are_not_cast_twice_give_the_same_gradients_to_the_bit(tiny_ar, make_ids):
    model, ids_BT = with_adapter(tiny_ar.model.bfloat16()), make_ids(3, 7)
    casts = lambda: [
        module.cast_input_dtype_enabled for module in model.modules() if isinstance(module, BaseTunerLayer)
    ]

    def gradients(precision) -> list[torch.Tensor]:
        model.zero_grad()
        with precision:
            next_token_cross_entropy(tiny_ar, ids_BT, generator(0)).backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]

    plain, ours = gradients(torch.autocast("cpu", dtype=torch.bfloat16)), gradients(half_precision(tiny_ar))
    assert any(grad.any() for grad in plain) and all(
        torch.equal(one, other) for one, other in zip(plain, ours, strict=True)
    )
    with half_precision(tiny_ar):
        assert casts() and not any(casts())
    assert all(casts()), "what was switched off is on again"


# checkpoints


def saved_and_loaded(tiny_ar, make_lm, ids_BT, checkpoint) -> tuple:
    """Return a model and optimizer after three steps and a checkpoint, and a second model loaded from it."""
    model = with_adapter(tiny_ar.model)
    optimizer = adam(model)
    some_steps(model, optimizer, ids_BT, 3)
    _save(model, optimizer, checkpoint, 3)
    return (
        model,
        optimizer,
        PeftModel.from_pretrained(make_lm("autoregressive").model, checkpoint, is_trainable=True),
    )


def test_a_checkpoint_brings_adapter_and_moments_back(tiny_ar, make_lm, make_ids, tmp_path):
    ids_BT, checkpoint = make_ids(3, 7), tmp_path / "checkpoint"
    model, optimizer, again = saved_and_loaded(tiny_ar, make_lm, ids_BT, checkpoint)
    restored = adam(again)
    assert _restore(restored, checkpoint) == 3
    for index, moments in optimizer.state_dict()["state"].items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(restored.state_dict()["state"][index][key], moments[key])
    for one, other in ((model, optimizer), (again, restored)):
        some_steps(one, other, ids_BT, 2)
    for (name, one), (_, other) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_without_moments_the_next_step_would_differ(tiny_ar, make_lm, make_ids, tmp_path):
    """The control for the test above."""
    ids_BT, checkpoint = make_ids(3, 7), tmp_path / "checkpoint"
    model, optimizer, again = saved_and_loaded(tiny_ar, make_lm, ids_BT, checkpoint)
    some_steps(model, optimizer, ids_BT, 1)
    some_steps(again, adam(again), ids_BT, 1)
    assert any(
        not torch.allclose(one, other, atol=1e-4)
        for one, other in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_nothing_beside_it(tiny_ar, make_ids, tmp_path):
    model = with_adapter(tiny_ar.model)
    optimizer = adam(model)
    (tmp_path / "checkpoint.new").mkdir()  # what a kill while saving leaves
    (tmp_path / "checkpoint.new" / "half").touch()
    for step in (1, 2):
        some_steps(model, optimizer, make_ids(2, 5), 1)
        _save(model, optimizer, tmp_path / "checkpoint", step)
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
        assert not (tmp_path / "checkpoint" / "half").exists()
        assert _restore(adam(model), tmp_path / "checkpoint") == step


def test_no_checkpoint_means_step_0(tiny_ar, tmp_path):
    assert _restore(adam(with_adapter(tiny_ar.model)), tmp_path / "checkpoint") == 0


def test_an_exported_adapter_merges_to_the_trained_model(prepared, make_ids, tmp_path):
    checkpoint = train(Training(**SHORT, learning_rate=1e-2), prepared, check_every=2)
    folder = export(checkpoint, tmp_path / "adapter")
    tensors, trained = (
        load_file(folder / "adapter_model.safetensors"),
        load_file(checkpoint / "adapter_model.safetensors"),
    )
    assert tensors.keys() == trained.keys()
    assert all(torch.equal(tensors[name], trained[name].to(torch.bfloat16)) for name in trained)
    assert (
        json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        == f"{embedded.BASE.package}=={embedded.BASE.version}"
    )
    base, _ = from_folder(embedded.base_folder(), torch.float32)
    before = base.model.layers[0].mlp.down_proj.weight.clone()
    merged = merge_adapter(base, folder, torch.float32)
    prefix = "base_model.model.model.layers.0.mlp.down_proj.lora"
    expected = before + 8 / 4 * tensors[f"{prefix}_B.weight"].float() @ tensors[f"{prefix}_A.weight"].float()
    torch.testing.assert_close(merged.model.layers[0].mlp.down_proj.weight, expected)
    assert not torch.allclose(expected, before, atol=1e-3)


def test_an_export_tells_the_run_up_to_its_checkpoint_without_repeats(prepared, tmp_path):
    checkpoint = train(Training(**SHORT), prepared, check_every=1)
    log = prepared / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    with log.open("a") as file:  # a step that a resumed run logged again, and one beyond the checkpoint
        for row in ({**rows[1], "train_nelbo": 1.25}, {**rows[3], "step": 5}):
            file.write(json.dumps(row) + "\n")
    folder = export(checkpoint, tmp_path / "adapter")
    told = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    assert told == [rows[0], {**rows[1], "train_nelbo": 1.25}, rows[2], rows[3]]
    card = (folder / "README.md").read_text()
    assert "Trained tokens: 64 in 4 steps" in card
    for row in told:
        assert (
            f"| {row['tokens']} | {row['learning_rate']:.2g} | {row['train_nelbo']:.3f} | {row['nelbo_samples']:.3f} | {row['nelbo_documentation']:.3f} |"
            in card
        )
    assert "| `length` | 8 |" in card and str(tmp_path) not in card


# runs


@pytest.mark.parametrize(
    "save_every", [1, 100]
)  # it goes on from the step it was killed in, or from the last row of the log
def test_a_killed_run_ends_as_if_it_had_not_been(prepared, tmp_path, monkeypatch, save_every):
    config, loss, calls = (
        Training(**{**SHORT, "warmup_steps": 3}),
        masked_cross_entropy,
        [],
    )  # the warm-up is not repeated

    def killed_at_the_fourth(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*arguments)

    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "data.safetensors").write_bytes((prepared / "data.safetensors").read_bytes())
    train(config, whole, check_every=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(lora.LOSSES, "diffusion", killed_at_the_fourth)
        train(config, prepared, check_every=2, save_every=save_every)
    with safe_open(prepared / "checkpoint" / "optimizer.safetensors", "pt") as handle:
        assert handle.metadata() == {"step": "3" if save_every == 1 else "2"}
    train(config, prepared, check_every=2)
    results = [load_file(folder / "checkpoint" / "adapter_model.safetensors") for folder in (whole, prepared)]
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (whole, prepared)
    ]
    assert [[row["step"] for row in log] for log in logs] == [[2, 4], [2, 4]]
    for one, other in zip(*logs, strict=True):
        for key in (
            "tokens",
            "learning_rate",
            *(["train_nelbo"] if save_every > 1 else []),
            "nelbo_samples",
            "nelbo_documentation",
        ):
            assert one[key] == other[key], key


def test_training_learns_and_a_finished_run_is_not_repeated(prepared):
    config = Training(**{**SHORT, "tokens": 100 * 32, "batch": 4, "learning_rate": 1e-2})
    checkpoint = train(config, prepared, check_every=25)
    log = [json.loads(line) for line in (prepared / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [25, 50, 75, 100]
    for name in ("nelbo_samples", "nelbo_documentation"):
        assert log[-1][name] < log[0][name] - 0.5 and log[-1][name] < 3  # nats; 4.3 without any knowledge
    before = (checkpoint / "adapter_model.safetensors").read_bytes()
    assert train(config, prepared) == checkpoint
    assert (checkpoint / "adapter_model.safetensors").read_bytes() == before
    assert len((prepared / "log.jsonl").read_text().splitlines()) == 4


def test_another_setting_in_the_same_folder_is_refused_by_name(prepared):
    (prepared / "training.json").write_text(
        json.dumps(Training(**{**SHORT, "learning_rate": 0.5, "rank": 7, "batch": 3}).__dict__)
    )
    with pytest.raises(
        ValueError, match=r"holds a run with other settings \(batch, rank\): use another folder"
    ):
        train(Training(**SHORT), prepared)


def test_a_run_goes_on_from_an_exported_adapter_at_its_place_in_the_data(prepared, tmp_path, monkeypatch):
    adapter = export(train(Training(**SHORT), prepared, check_every=2), tmp_path / "adapter")
    assert json.loads((adapter / "training.json").read_text())["tokens"] == 64
    other, asked = tmp_path / "another machine", []
    other.mkdir()
    (other / "data.safetensors").write_bytes((prepared / "data.safetensors").read_bytes())
    place = Mixture.batch
    monkeypatch.setattr(
        Mixture, "batch", lambda self, start, count: asked.append(start) or place(self, start, count)
    )
    train(Training(**{**SHORT, "tokens": 112}), other, start_from=adapter, check_every=2)
    assert asked == [8, 10, 12]  # sequences: the first four steps have seen 0 … 7
    rows = [json.loads(line) for line in (other / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 7]
    assert rows[:2] == [
        json.loads(line) for line in (adapter / "training_log.jsonl").read_text().splitlines()
    ]


def test_a_run_may_be_lengthened(prepared):
    train(Training(**SHORT), prepared, check_every=2)
    train(Training(**{**SHORT, "tokens": 96, "decay_share": 0.5}), prepared, check_every=2)
    assert [json.loads(line)["step"] for line in (prepared / "log.jsonl").read_text().splitlines()] == [
        2,
        4,
        6,
    ]


def test_an_adapter_that_a_run_cannot_go_on_from_is_refused(prepared, tmp_path):
    adapter = export(train(Training(**SHORT), prepared), tmp_path / "adapter")
    folder = tmp_path / "run2"
    with pytest.raises(ValueError, match=r"tokens=64 are not more than the 64 the adapter"):
        train(Training(**SHORT), folder, start_from=adapter)
    with pytest.raises(ValueError, match=r"holds a run with other settings \(kind, length\)"):
        train(
            Training(**{**SHORT, "kind": "autoregressive", "length": 16, "tokens": 999}),
            folder,
            start_from=adapter,
        )
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "gpt2"}))
    with pytest.raises(ValueError, match="belongs to the base 'gpt2'"):
        train(Training(**{**SHORT, "tokens": 999}), folder, start_from=adapter)
    (adapter / "training_log.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="has no training_log.jsonl: start from a folder"):
        train(Training(**{**SHORT, "tokens": 999}), folder, start_from=adapter)
    assert not (folder / "log.jsonl").exists()


def test_the_twin_learns_the_same_data_by_the_next_token(prepared):
    config = Training(
        **{**SHORT, "kind": "autoregressive", "tokens": 40 * 32, "batch": 4, "learning_rate": 1e-2}
    )
    checkpoint = train(config, prepared, check_every=20)
    log = [json.loads(line) for line in (prepared / "log.jsonl").read_text().splitlines()]
    assert log[-1]["nll_samples"] < log[0]["nll_samples"] - 0.3
    assert "Trained tokens" in (export(checkpoint, prepared.parent / "twin") / "README.md").read_text()


def test_the_next_token_loss_is_the_negative_log_likelihood(tiny_ar, make_ids):
    ids_BT = make_ids(3, 7)
    expected = nll(tiny_ar, ids_BT).value.mean()
    assert next_token_cross_entropy(tiny_ar, ids_BT, generator(0)).item() == pytest.approx(expected, rel=1e-5)


def test_sinks_are_logged_along_the_run_and_change_nothing(prepared, tmp_path, monkeypatch):
    whole = tmp_path / "unwatched"
    whole.mkdir()
    (whole / "data.safetensors").write_bytes((prepared / "data.safetensors").read_bytes())
    watched = load_file(train(Training(**SHORT), prepared, check_every=2) / "adapter_model.safetensors")
    row = json.loads((prepared / "log.jsonl").read_text().splitlines()[-1])
    assert row["sinks_sinks_per_step"] > 0 and 0 <= row["sinks_overlap"] <= 1
    monkeypatch.setattr(lora, "sink_row", lambda *arguments: {})
    unwatched = load_file(train(Training(**SHORT), whole, check_every=2) / "adapter_model.safetensors")
    assert all(torch.equal(watched[name], unwatched[name]) for name in watched)


def test_the_trained_pair_is_loaded_by_its_names(prepared, make_ids, monkeypatch):
    """The whole way: train on a base, export, and read both models back as everybody does."""
    adapter = export(train(Training(**SHORT, learning_rate=1e-2), prepared), prepared.parent / "adapter")
    monkeypatch.setitem(embedded.ADAPTERS, "smol-dlm", adapter)
    ar, dlm = load("smol-ar"), load("smol-dlm")
    assert (ar.kind, dlm.kind, dlm.mask_token_id) == ("autoregressive", "diffusion", MASK_TOKEN_ID)
    assert ar.model.dtype == dlm.model.dtype == torch.float32
    base, _ = from_folder(embedded.base_folder(), torch.float32)
    trained = PeftModel.from_pretrained(set_direction(base, causal=False), adapter)
    ids_BT = make_ids(2, 8)
    expected_BTV = trained(ids_BT, use_cache=False).logits
    torch.testing.assert_close(dlm.model(ids_BT, use_cache=False).logits, expected_BTV, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(ar.model(ids_BT, use_cache=False).logits, expected_BTV, atol=0.1)
    assert not any(parameter.requires_grad for parameter in dlm.model.parameters())
    halved = load("smol-dlm", "bfloat16")
    for name, parameter in dlm.model.named_parameters():
        assert torch.equal(halved.model.get_parameter(name), parameter.to(torch.bfloat16)), name


def test_the_adapted_twin_is_loaded_by_its_name_and_stays_causal(prepared, make_ids, monkeypatch):
    config = Training(**{**SHORT, "kind": "autoregressive", "learning_rate": 1e-2})
    monkeypatch.setitem(
        embedded.ADAPTERS, "smol-ar-adapted", export(train(config, prepared), prepared.parent / "twin")
    )
    before, twin, ids_BT = load("smol-ar"), load("smol-ar-adapted"), make_ids(2, 8)
    assert (twin.name, twin.kind, twin.mask_token_id) == ("smol-ar-adapted", "autoregressive", None)
    changed_BT = torch.cat([ids_BT[:, :-1], (ids_BT[:, -1:] - 16) % 55 + 17], dim=1)
    assert torch.equal(
        twin.hidden(ids_BT)[:, :-1], twin.hidden(changed_BT)[:, :-1]
    )  # no position sees what follows
    assert not torch.allclose(twin.hidden(ids_BT), before.hidden(ids_BT), atol=1e-3)


def test_a_missing_adapter_says_how_to_make_one(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setitem(embedded.ADAPTERS, "smol-dlm", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere: train one with `sinkprune train`"):
        load("smol-dlm")
