"""The harness model answers as the harness's own does, for diffusion as our estimators and samplers do."""

import math

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny_tasks import DOCS, TASKS

from sinkprune.evaluation.conditional_likelihood import log_likelihood
from sinkprune.evaluation.harness.harness_model import HarnessModel
from sinkprune.evaluation.protocols import Protocol
from sinkprune.models.saving import save
from sinkprune_core import Sampler, generate

pytestmark = pytest.mark.slow


def run(model, manager, tasks, **options):
    return simple_evaluate(model, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, **options)


def likelihoods(model: HarnessModel, *arguments) -> list[float]:
    return [value for value, _ in model.loglikelihood(requests(*arguments))]


def requests(*arguments) -> list[Instance]:
    return [Instance("loglikelihood", {}, args, index) for index, args in enumerate(arguments)]


# an autoregressive model answers what the harness's own model answers


def test_an_autoregressive_model_agrees_with_the_harness_s_own(tiny_ar, tmp_path, manager):
    saved = save(tiny_ar, tmp_path / "model")
    theirs = run(
        HFLM(pretrained=str(saved), dtype="float32", device="cpu", batch_size=2),
        manager,
        TASKS,
        num_fewshot=1,
    )

    ours = run(
        "sinkprune",
        manager,
        TASKS,
        num_fewshot=1,
        model_args={"pretrained": str(saved), "device": "cpu"},
        batch_size=4,
    )

    assert set(ours["results"]) == set(TASKS) and ours["config"]["kind"] == "autoregressive"

    for task in TASKS:
        for key, value in theirs["results"][task].items():
            if isinstance(value, float):
                assert ours["results"][task][key] == pytest.approx(value, rel=1e-4), (task, key)

        for mine, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
            for [answer], [expected] in zip(mine["resps"], other["resps"], strict=True):
                if isinstance(answer, str):
                    assert answer == expected
                else:
                    assert answer == pytest.approx(expected, abs=1e-4)

    assert max(len(doc["long"].split()) for doc in DOCS) > 2 * 64  # several windows


# a diffusion model answers with the estimators and samplers


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        ({"mc_num": 12}, Protocol("count", 12, 4)),
        ({"mc_num": 16, "guidance": 0.5, "seed": 3}, Protocol("count", 16, 8, guidance=0.5)),
        ({"protocol": "dream", "mc_num": 64}, Protocol("bernoulli", 64, 32, visible_end=True)),
        (
            {"protocol": "dream", "mc_num": 5, "batch_size": "7"},
            Protocol("bernoulli", 5, 1, visible_end=True),
        ),
    ],
    ids=["llada", "guided", "dream", "own grids"],
)
def test_likelihoods_are_those_of_the_protocol(tiny_dlm, settings, how):
    asked = [(doc["text"], " " + choice) for doc in DOCS for choice in doc["choices"]]
    answers = HarnessModel(tiny_dlm, **settings).loglikelihood(requests(*asked))
    values = [value for value, _ in answers]

    pairs = [tuple(map(tiny_dlm.encode, pair)) for pair in asked]
    frame = log_likelihood(tiny_dlm, pairs, how, settings.get("seed", 0))
    assert values == pytest.approx(frame.groupby("sequence").value.mean().tolist(), rel=1e-4)
    assert not any(greedy for _, greedy in answers)

    again = likelihoods(HarnessModel(tiny_dlm, **{**settings, "batch_size": 1}), *reversed(asked[:5]))
    assert again[::-1] == pytest.approx(values[:5], rel=1e-4)


def test_a_diffusion_model_can_be_asked_what_it_would_write(tiny_dlm, make_ids):
    prompt = make_ids(1, 4)
    written = tiny_dlm.tokenizer.decode(generate(tiny_dlm, prompt, Sampler(3, 3, None))[0, 4:])
    model = HarnessModel(tiny_dlm, mc_num=1, is_check_greedy=True)
    context = tiny_dlm.tokenizer.decode(prompt[0])
    answers = model.loglikelihood(requests((context, " " + written), (context, " word29 word29 word29")))
    assert [greedy for _, greedy in answers] == [True, False]


def test_rolling_windows_cover_a_text_once_each(tiny_dlm):
    model, text = HarnessModel(tiny_dlm, mc_num=8), DOCS[4]["long"]
    ids = tiny_dlm.encode(text)
    pairs = [(torch.tensor([0]), ids[:63]), (ids[62:63], ids[63:126])]
    pairs.append((ids[len(ids) - 64 : 126], ids[126:]))
    assert sum(len(target) for _, target in pairs) == len(ids) == 130
    frame = log_likelihood(tiny_dlm, pairs, Protocol("count", 8, 8))
    [answer] = model.loglikelihood_rolling(requests((text,)))
    assert answer == pytest.approx(frame.groupby("sequence").value.mean().sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "sampler"),
    [
        ({}, Sampler(12, 12, None)),
        (
            {"sampler": "dream", "steps": 6},
            Sampler(12, 6, None, "entropy", "time", 0.0, "filtered", top_p=0.95),
        ),
        (
            {"block": 4, "temperature": 0.9, "guidance": 0.5, "order": "random"},
            Sampler(12, 12, 4, "random", "even", 0.9, guidance=0.5),
        ),
        (
            {"gen_length": 20, "sampler": "dream", "temperature": 1.0, "order": "random"},
            Sampler(20, 20, None, "random", "time", 1.0, "filtered", top_p=0.95),
        ),
    ],
    ids=["llada", "dream", "blocks", "dream in random order"],
)
def test_texts_are_those_of_the_sampler_whatever_the_batch(tiny_dlm, settings, sampler):
    asked = [(doc["text"], {"until": ["word30", "word31"], "max_gen_toks": 12}) for doc in DOCS]
    texts = HarnessModel(tiny_dlm, **settings, seed=2, batch_size=4).generate_until(requests(*asked))
    single = HarnessModel(tiny_dlm, **settings, seed=2, batch_size=1)
    assert single.generate_until(requests(*reversed(asked))) == texts[::-1]

    for (context, _), text in zip(asked, texts, strict=True):
        prompt_T = tiny_dlm.encode(context)
        name = (tuple(prompt_T.tolist()), 0)
        [ids_T] = generate(tiny_dlm, prompt_T[None], sampler, seed=2, names=[name])
        whole = ids_T[len(prompt_T) :].tolist()

        if 0 in whole:
            whole = whole[: whole.index(0)]

        expected = tiny_dlm.tokenizer.decode(whole, skip_special_tokens=True)
        for stop in ("word30", "word31"):
            expected = expected.split(stop)[0]

        assert text == expected


# refusals


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("diffusion", {"protocol": "llama"}, "protocol='llama' is unknown; choose one of llada, dream"),
        ("diffusion", {"mc_num": 0}, "draws=0 "),
        ("diffusion", {"guidance": math.nan}, "model argument guidance=nan cannot be"),
        ("diffusion", {"max_length": 65}, "max_length=65 must lie in 2 … 64"),
        ("diffusion", {"gen_length": 10, "block": 4}, "length=10 is not a multiple of block=4"),
        ("autoregressive", {"guidance": 0.5, "mc_num": 8}, "mc_num=8, guidance=0.5 cannot be used"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(kind, options, message, make_lm):
    with pytest.raises(ValueError, match=message):
        HarnessModel(make_lm(kind), **options)
