"""The model card: measures agree with loops over naive code, the curve's fit finds what went in, and the card is its files' and no more."""

import copy
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from sinkprune_core.cli.main import main
from sinkprune_core.companion.records import DRAWING
from sinkprune_core.corpus import separator
from sinkprune_core.diffusion.sampling import random_mask
from sinkprune_core.evaluation import quality
from sinkprune_core.evaluation.likelihood import nelbo, nll
from sinkprune_core.models.embedded import ADAPTER, MASK_TOKEN_ID
from sinkprune_core.seeds import generator
from sinkprune_core.training import card, card_measures, learning_curve
from sinkprune_core.training.lora import settings_of

COMMITTED = ADAPTER / card.MEASURED


# filling masks


def test_filling_equals_a_naive_loop(tiny_dlm, tiny_ar, make_ids):
    ids_NT = make_ids(3, 9)
    found = quality.filling(tiny_dlm, tiny_ar, ids_NT, shares=(0.25, 1.0), seed=4, batch=2).set_index(
        ["model", "share", "sequence"]
    )
    for share, masks in ((0.25, 2), (1.0, 8)):
        for sequence, ids_T in enumerate(ids_NT):
            where_T = random_mask(torch.arange(9) > 0, masks, generator(4, "filling", sequence))
            for lm, input_T in ((tiny_dlm, torch.where(where_T, MASK_TOKEN_ID, ids_T)), (tiny_ar, ids_T)):
                log_p_TV = lm.model(input_T[None], use_cache=False).logits[0].log_softmax(-1)
                places = [place for place in range(9) if where_T[place]]
                hits = [int(log_p_TV[place - 1].argmax()) == int(ids_T[place]) for place in places]
                row = found.loc[lm.name, share, sequence]
                assert row.masks == len(places) == masks and row.kind == lm.kind
                assert row.correct == pytest.approx(np.mean(hits))
                assert row.value == pytest.approx(
                    np.mean([-float(log_p_TV[place - 1, ids_T[place]]) for place in places]), rel=1e-5
                )


def test_filling_depends_on_the_seed_and_not_on_the_batch(tiny_dlm, tiny_ar, make_ids):
    ids_NT = make_ids(5, 12)
    one, other, another = (
        quality.filling(tiny_dlm, tiny_ar, ids_NT, shares=(0.5,), seed=seed, batch=batch)
        for seed, batch in ((0, 1), (0, 5), (1, 5))
    )
    pd.testing.assert_frame_equal(one, other, rtol=1e-5)
    assert not np.allclose(one.value, another.value)


def test_with_everything_masked_the_twin_is_scored_on_every_token(tiny_dlm, tiny_ar, make_ids):
    ids_NT = make_ids(4, 7)
    found = quality.filling(tiny_dlm, tiny_ar, ids_NT, shares=(1.0,))
    assert (found.masks == 6).all()
    assert found[found.kind == "autoregressive"].value.to_numpy() == pytest.approx(
        nll(tiny_ar, ids_NT).value.to_numpy(), rel=1e-5
    )


def test_filling_refuses_models_and_shares_that_cannot_be(tiny_dlm, tiny_ar, make_ids):
    with pytest.raises(
        ValueError,
        match="tiny-autoregressive is autoregressive and tiny-diffusion is diffusion: filling compares",
    ):
        quality.filling(tiny_ar, tiny_dlm, make_ids(2, 5))
    with pytest.raises(ValueError, match=r"shares=\[0, 1\.5\] must lie in \(0, 1\]"):
        quality.filling(tiny_dlm, tiny_ar, make_ids(2, 5), shares=(0, 0.5, 1.5))


# noise levels, and everything together


def test_levels_equal_loops_and_their_mean_is_the_nelbo(tiny_dlm, make_ids):
    scores = nelbo(
        tiny_dlm, make_ids(6, 9), draws=4, seed=2
    )  # 8 maskable tokens: one draw of each sequence in every quarter
    found = quality.by_level(scores, parts=4)
    assert list(found) == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
    for (low, high), estimate in found.items():
        assert estimate.value == pytest.approx(
            np.mean([row.value for row in scores.itertuples() if low < row.noise <= high])
        )
        assert estimate.units == 6
    assert np.mean([estimate.value for estimate in found.values()]) == pytest.approx(scores.value.mean())
    assert list(quality.by_level(scores[scores.noise > 0.5], parts=4)) == [(0.5, 0.75), (0.75, 1.0)]


def test_measures_are_paired_and_tasks_of_single_items_have_no_pairs(tiny_dlm, tiny_ar, make_ids):
    texts = {"samples": make_ids(4, 9, seed=1), "another": make_ids(3, 9, seed=2)}
    alone = lambda lm: pd.DataFrame(
        {
            "group": "g",
            "pair": range(4),
            "template": 0,
            "margin": 1.0,
            "margin_mean": 1.0,
            "correct": [lm.is_diffusion, True, True, True],
        }
    )
    twice = lambda lm: pd.DataFrame(
        {
            "group": "g",
            "pair": [0, 0, 1, 1],
            "template": 0,
            "margin": [1.0, -2.0, 1.0, 1.0],
            "margin_mean": 1.0,
            "correct": [True, False, True, True],
        }
    )
    rows = quality.measure(tiny_dlm, tiny_ar, texts, {"alone": alone, "twice": twice}, draws=4, seed=3)
    value = {(row["measure"], row["on"], str(row["level"]), row["model"]): row["value"] for row in rows}
    for name, ids_NT in texts.items():
        bound, exact = nelbo(tiny_dlm, ids_NT, 4, 3).value.mean(), nll(tiny_ar, ids_NT).value.mean()
        assert value["likelihood", name, "None", tiny_dlm.name] == pytest.approx(bound)
        assert value["likelihood", name, "None", "difference"] == pytest.approx(bound - exact)
        assert ("level", name, "[0.0, 0.25]", tiny_dlm.name) in value and (
            "correct",
            name,
            "0.85",
            tiny_ar.name,
        ) in value
    assert (
        value["items", "alone", "all", tiny_dlm.name] == 1
        and value["items", "alone", "all", tiny_ar.name] == 0.75
    )
    assert (
        value["items", "twice", "g", tiny_ar.name] == 0.75
        and value["pairs", "twice", "g", tiny_ar.name] == 0.5
    )
    assert not [key for key in value if key[:2] == ("pairs", "alone")]
    json.dumps(rows, allow_nan=False)


def test_samples_are_the_same_for_a_seed_and_as_many_as_asked_for(tiny_dlm, monkeypatch):
    monkeypatch.setattr(quality, "SAMPLE_TOKENS", 32)
    arguments = {"prompts": ["the list of"], "steps": (8, 32)}
    found = quality.samples(tiny_dlm, **arguments)
    assert [(each["prompt"], each["steps"]) for each in found] == [("the list of", 8), ("the list of", 32)]
    assert found == quality.samples(tiny_dlm, **arguments) != quality.samples(tiny_dlm, **arguments, seed=1)


def test_the_modules_of_the_card_leave_records_of_pruning_alone():
    assert {"card", "quality"} <= set(DRAWING) and len(quality.source()) == 16


# the learning curve


def curve(floor: float, scale: float, exponent: float, noise: float = 0.0, rows: int = 12) -> list[dict]:
    """A log on a power law at a flat rate, with two rows of a falling rate that do not lie on it."""
    rng = np.random.default_rng(0)
    log = [
        {
            "tokens": 100_000 * step,
            "learning_rate": 1.0,
            "nelbo": float(learning_curve.power_law(100_000 * step, floor, scale, exponent))
            + noise * rng.normal(),
        }
        for step in range(1, rows + 1)
    ]
    return [
        *log[:6],
        {"tokens": 650_000, "learning_rate": 0.5, "nelbo": 0.1},
        *log[6:],
        {"tokens": 100_000 * rows + 50_000, "learning_rate": 0.0, "nelbo": 0.2},
    ]


def test_the_fit_finds_the_power_law_that_went_in_and_leaves_falling_rates_out():
    found = learning_curve.extrapolate(curve(2.0, 0.5, 0.4), "nelbo", [2_000_000], needed=0.1, refits=3)
    assert found["points"] == 12 and found["residual"] < 1e-4
    for name, value in (("floor", 2.0), ("scale", 0.5), ("exponent", 0.4)):
        assert found[name]["value"] == pytest.approx(value, abs=1e-2)
    now = 1.25**-0.4
    assert found["gains"][0]["value"] == pytest.approx(0.5 * (now - 2**-0.4), abs=1e-3)
    assert found["tokens"]["value"] == pytest.approx(
        1e6 * (now - 0.2) ** -2.5, rel=0.02
    )  # 0.5 nats times this to the -0.4 are 0.1 less


def test_what_lies_below_the_floor_is_never_reached_and_noise_widens_the_interval():
    calm, noisy = (
        learning_curve.extrapolate(curve(2.0, 0.5, 0.4, noise), "nelbo", [1e8], needed=0.6, refits=40)[
            "gains"
        ][0]
        for noise in (0.002, 0.02)
    )
    assert noisy["high"] - noisy["low"] > 3 * (calm["high"] - calm["low"]) > 0
    assert calm["low"] <= 0.5 * (1.25**-0.4 - 100**-0.4) <= calm["high"]
    assert learning_curve.extrapolate(curve(2.0, 0.5, 0.4), "nelbo", [1e8], needed=0.6, refits=3)[
        "tokens"
    ] == {"value": None, "low": None, "high": None}


def test_three_parameters_need_five_rows():
    with pytest.raises(ValueError, match="has 4 rows at its flat learning rate, and three parameters need 5"):
        learning_curve.extrapolate(
            [{"tokens": step, "learning_rate": 1.0, "nelbo": 1.0} for step in range(1, 5)],
            "nelbo",
            [10.0],
            0.1,
            3,
        )


# the card


@pytest.fixture
def adapter(tmp_path):
    """A copy of the committed adapter's folder with other, small weights, which the measures are told to belong to."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("training.json", "training_log.jsonl", "README.md"):
        shutil.copy(ADAPTER / name, folder)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    measures = json.loads(COMMITTED.read_text(encoding="utf-8"))
    (folder / card.MEASURED).write_text(json.dumps({**measures, "adapter": card.adapter_digest(folder)}))
    return folder


def test_the_committed_card_is_in_step_with_its_measures_its_log_and_its_adapter():
    measures = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert measures["adapter"] == card.adapter_digest(ADAPTER), "run `sinkprune card`"
    assert (ADAPTER / "README.md").read_text(encoding="utf-8") == card.render(
        settings_of(ADAPTER / "training.json"), card.log_of(ADAPTER), measures
    ), "run `sinkprune card --render`"


def test_the_card_has_every_number_and_says_what_was_not_measured():
    measures = json.loads(COMMITTED.read_text(encoding="utf-8"))
    text = card.render(settings_of(ADAPTER / "training.json"), card.log_of(ADAPTER), measures)
    for row in measures["rows"]:
        assert card._estimate(row, row["measure"] in ("correct", "items", "pairs")) in text, row
    for sample in measures["samples"]:
        assert sample["text"] in text
    for name in (card.WIKITEXT, card.BLIMP):
        (line, *_) = [line for line in text.splitlines() if line.startswith(f"| {name}")]
        assert ("not measured" in line) is not any(row["on"].startswith(name) for row in measures["rows"])


def test_goals_follow_the_intervals():
    measures = json.loads(COMMITTED.read_text(encoding="utf-8"))

    def verdicts(difference: tuple[float, float], right: tuple[float, float]) -> list[str]:
        changed = copy.deepcopy(measures)
        for row in changed["rows"]:
            bounds = (
                difference
                if row["model"] == "difference"
                else right
                if (row["measure"], row["level"], row["model"]) == ("items", "all", "smol-dlm")
                else None
            )
            if bounds:
                row["low"], row["high"] = bounds
        text = card.render(settings_of(ADAPTER / "training.json"), card.log_of(ADAPTER), changed)
        return [
            line.split(" | ")[-1].strip(" |")
            for line in text.splitlines()
            if line.startswith(("| NELBO on", "| right answers"))
        ]

    assert verdicts((0.3, 0.6), (0.75, 0.8)) == ["met", "met", "met"]
    assert verdicts((0.7, 0.9), (0.6, 0.74)) == ["missed", "missed", "missed"]
    assert verdicts((0.5, 0.7), (0.7, 0.8)) == ["open: the interval holds both"] * 3


def test_rendering_from_the_command_line_gives_the_same_card_again(adapter, capsys):
    before = (adapter / "README.md").read_text(encoding="utf-8")
    (adapter / "README.md").unlink()
    assert main(["card", "--folder", str(adapter), "--render"]) == 0
    assert (adapter / "README.md").read_text(encoding="utf-8") == before


def test_measures_of_another_adapter_are_refused_and_none_are_said_to_be_missing(adapter, capsys):
    (adapter / "adapter_model.safetensors").write_bytes(b"other weights")
    assert main(["card", "--folder", str(adapter), "--render"]) == 1
    assert (
        "was measured on another adapter than the one beside it: run `sinkprune card"
        in capsys.readouterr().err
    )
    (adapter / card.MEASURED).unlink()
    text = card.write_card(adapter).read_text(encoding="utf-8")
    assert "Not measured yet" in text and "What more training would bring" not in text


def test_only_exported_diffusion_adapters_are_measured(adapter):
    with pytest.raises(FileNotFoundError, match=r"has no training\.json: give a folder that"):
        card_measures.merged(adapter / "nothing")
    (adapter / "training.json").write_text(
        json.dumps({**settings_of(adapter / "training.json"), "kind": "autoregressive"})
    )
    with pytest.raises(ValueError, match="is autoregressive: a card's measures compare a diffusion model"):
        card_measures.merged(adapter)


def test_a_whole_measurement_of_a_tiny_adapter_ends_in_a_card(
    tiny_base, tiny_ar, make_ids, tmp_path, monkeypatch
):
    from peft import LoraConfig, get_peft_model

    folder = tmp_path / "adapter"
    get_peft_model(
        tiny_ar.model.float(), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    ).save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"kind": "diffusion", "length": 9, "seed": 0}))
    log = [
        {
            "step": row["tokens"],
            "train_nelbo": 5.0,
            "nelbo_samples": row["nelbo"],
            "nelbo_documentation": row["nelbo"] + 1,
            **row,
        }
        for row in curve(2.0, 0.5, 0.4, 0.01)
    ]
    (folder / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    texts = {"samples": make_ids(3, 9, 1), "documentation": make_ids(3, 9, 2)}
    monkeypatch.setattr(card.corpus, "texts", lambda *_, **__: texts)
    monkeypatch.setattr(card, "REFITS", 3)
    monkeypatch.setattr(quality, "SAMPLE_TOKENS", 32)
    monkeypatch.setattr(
        card_measures.quality,
        "samples",
        lambda lm, seed, original=quality.samples: original(lm, ["the list of"], (2, 4), seed),
    )
    answers = pd.DataFrame(
        {
            "group": "g",
            "pair": [0, 0, 1, 1],
            "template": 0,
            "margin": 1.0,
            "margin_mean": 1.0,
            "correct": True,
        }
    )
    monkeypatch.setattr(quality, "offline_suite", lambda *_, **__: lambda lm: answers)
    data = tmp_path / "data"
    data.mkdir()
    (data / "wiki.valid.raw").write_text(
        " = A title = \n \n" + " some words of a page of which there are many \n" * 20, encoding="utf-8"
    )
    for name in ("wh_island", "passive_1"):
        (data / f"{name}.jsonl").write_text(
            "".join(
                json.dumps(
                    {"sentence_good": f"the list of {number}", "sentence_bad": f"list the of {number}"}
                )
                + "\n"
                for number in range(5)
            ),
            encoding="utf-8",
        )
    text = card_measures.write_measures(folder, sequences=3, draws=2, items=6, data=data).read_text(
        encoding="utf-8"
    )
    assert "not measured |" not in text and "| offline suite | g | 100%" in text
    assert [
        row["units"]
        for row in json.loads((folder / card.MEASURED).read_text())["rows"]
        if row["on"] == card.WIKITEXT and row["measure"] == "likelihood"
    ] == [3] * 3
    assert all(
        f"| BLiMP, 2 of 67 paradigms | {group} |" in text for group in ("wh_island", "passive_1", "all")
    )
    with pytest.raises(ValueError, match="holds neither WikiText-2's validation split nor BLiMP"):
        card_measures.local_data(folder, tiny_ar, 3, 9, 6, 2, 0)
    assert card.write_card(folder).read_text(encoding="utf-8") == text


def test_minimal_pairs_are_scored_as_whole_sentences(tiny_ar):
    pairs = [
        {"sentence_good": "the list of names", "sentence_bad": "list the names of"},
        {"sentence_good": "a value", "sentence_bad": "value a"},
    ]
    start = separator(tiny_ar.tokenizer)

    def naive(text: str) -> float:
        ids_T = torch.cat([torch.tensor([start]), tiny_ar.encode(f" {text}")])
        log_p_TV = tiny_ar.model(ids_T[None]).logits[0].double().log_softmax(-1)
        return float(log_p_TV[:-1].gather(1, ids_T[1:, None]).sum())

    margin = quality.minimal_pairs({"p": pairs}, draws=1)(tiny_ar).margin
    assert margin.tolist() == pytest.approx(
        [naive(pair["sentence_good"]) - naive(pair["sentence_bad"]) for pair in pairs], abs=1e-4
    )
