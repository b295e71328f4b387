"""Whoever asks for a forward: ids that a model does not know and numbers that are not finite are refused."""

import pytest
import torch
from random_models.cases import CASES as PUBLIC
from random_models.writing import write

from sinkprune import load, nelbo, nll, prune, score
from sinkprune.evaluation.conditional_likelihood import exact_log_likelihood, log_likelihood, perplexity
from sinkprune.evaluation.protocols import Protocol
from sinkprune.evaluation.two_choice import accuracy
from sinkprune.models.loading import open_checkpoint
from sinkprune.models.reader import Checkpoint
from sinkprune.models.saving import save
from sinkprune.models.streaming import stream
from sinkprune_companion.hiding import Hiding, hiding_model
from sinkprune_core import Calibration, Sampler, generate, preset, trace
from sinkprune_core.diffusion.sampling import decode
from sinkprune_core.pruning.engine import dense_statistics
from sinkprune_core.values import is_finite

pytestmark = pytest.mark.slow

SAMPLER = Sampler(length=4, steps=2, block=None)
SHORT = Protocol(draws=2, grid=1, chunk=2, context=4)
ITEMS = [
    {"context": "the word30", "choices": ["word31", "word32"], "answer": 0}
    | {"group": "g", "pair": 0, "template": "t"}
]
USES = {
    "diffusion": {
        "hidden": lambda lm, ids: lm.hidden(ids),
        "logits": lambda lm, ids: lm.logits_at(ids, torch.ones(ids.shape, dtype=torch.bool)),
        "nelbo": nelbo,
        "score": score,
        "pairs": lambda lm, ids: log_likelihood(lm, [(row[:2], row[2:]) for row in ids], SHORT),
        "perplexity": lambda lm, ids: perplexity(lm, ids.flatten(), SHORT),
        "generate": lambda lm, ids: generate(lm, ids, SAMPLER),
        "trace": lambda lm, ids: trace(lm, ids, SAMPLER, progress=False),
        "prune": lambda lm, ids: prune(lm, preset("dwanda"), Calibration(ids), progress=False),
        "prune by sinks": lambda lm, ids: prune(lm, preset("unstable"), Calibration(ids), progress=False),
        "sequential by sinks": lambda lm, ids: prune(
            lm, preset("unstable", propagation="sequential"), Calibration(ids), progress=False
        ),
        "statistics": lambda lm, ids: dense_statistics(lm, [preset("all-sinks")], Calibration(ids), False),
        "hidden keys": lambda lm, ids: nelbo(hiding_model(lm, Hiding("top", 1)), ids),
    },
    "autoregressive": {
        "hidden": lambda lm, ids: lm.hidden(ids),
        "nll": nll,
        "score": score,
        "pairs": lambda lm, ids: exact_log_likelihood(lm, [(row[:2], row[2:]) for row in ids]),
        "decode": lambda lm, ids: decode(lm, ids, 4),
        "trace": lambda lm, ids: trace(lm, ids, SAMPLER, progress=False),
        "prune": lambda lm, ids: prune(lm, preset("wanda"), Calibration(ids), progress=False),
    },
}
CASES = [(kind, name) for kind, uses in USES.items() for name in uses]


def overflowing(lm, dtype=torch.float16, scale: float = 1e4):
    """Make the products of every MLP too large for a dtype."""
    lm.model.to(dtype)
    for block in lm.blocks:
        for name, linear in lm.linears(block).items():
            if name.startswith("mlp") and "down" not in name and name != "mlp.c_proj":
                linear.weight.mul_(scale)
    return lm


@pytest.mark.parametrize(
    ("family", "dtype", "scale"),
    [
        ("llama-gqa", torch.float16, 1e4),
        ("gpt2", torch.float16, 1e4),
        ("llama-gqa", torch.bfloat16, 1e36),
        ("llama-gqa", torch.float32, 1e36),
    ],
)
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_overflows_is_refused_by_name(make_family, make_ids, family, dtype, scale, kind, name):
    lm = overflowing(make_family(family, kind), dtype, scale)
    with pytest.raises(ValueError, match=r"not finite.*(wider dtype|nothing of this linear was changed)"):
        USES[kind][name](lm, make_ids(3, 8))


@pytest.mark.parametrize("kind", USES)
def test_two_choice_answers_that_overflow_are_refused(make_family, kind):
    lm = overflowing(make_family("llama-gqa", kind))
    with pytest.raises(ValueError, match=f"tiny-llama-gqa-{kind} computes in torch.float16 is not finite"):
        accuracy(lm, ITEMS)


@pytest.mark.parametrize("kind", USES)
def test_a_head_that_overflows_is_refused(make_family, make_ids, kind):
    """Its last hidden states are finite."""
    lm = make_family("llama-gqa", kind)
    lm.model.to(torch.float16)
    lm.model.lm_head.weight = torch.nn.Parameter(lm.model.lm_head.weight * 6e4, requires_grad=False)
    assert is_finite(lm.hidden(make_ids(3, 8)))
    for name in ("score", "pairs", "generate" if kind == "diffusion" else "decode"):
        with pytest.raises(ValueError, match="is not finite"):
            USES[kind][name](lm, make_ids(3, 8))


def bad_ids(ids_BT: torch.Tensor) -> dict[str, object]:
    """Return ids of which each is wrong, and what is said of them."""
    negative, beyond = ids_BT.clone(), ids_BT.clone()
    negative[-1, -1] = -1
    beyond[-1, -1] = 72

    return {
        "token id -1 is outside the vocabulary of .*, 0 … 71": negative,
        "token id 72 is outside the vocabulary of .*, 0 … 71": beyond,
        r"torch\.int32": ids_BT.int(),
        r"torch\.float32": ids_BT.float(),
    }


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_ids_that_are_no_tokens_are_refused(make_family, make_ids, kind, name):
    """Also where a mask would stand in their place."""
    lm = make_family("llama-gqa", kind)
    for said, ids in bad_ids(make_ids(3, 8)).items():
        with pytest.raises(ValueError, match=said):
            USES[kind][name](lm, ids)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_more_tokens_than_positions_are_refused(make_family, make_ids, kind, name):
    """With rotary positions, which would give a number."""
    lm = make_family("llama-gqa", kind)
    if name == "perplexity":
        pytest.skip("it has windows of its own")
    with pytest.raises(ValueError, match=r"a sequence of \d+ tokens exceeds the 64 positions of tiny-"):
        USES[kind][name](lm, make_ids(3, 66))


@pytest.mark.parametrize("shape", [(0, 5), (1, 0)])
def test_no_token_at_all_is_refused(tiny_dlm, shape):
    ids_BT = torch.zeros(shape, dtype=torch.long)
    said = rf"ids_BT has shape \({shape[0]}, {shape[1]}\): .* \(sequences, tokens\), at least one of each"
    for mask_BT in (None, torch.ones_like(ids_BT)):
        with pytest.raises(ValueError, match=said):
            tiny_dlm.hidden(ids_BT, mask_BT)


def test_positions_that_are_no_bool_for_every_id_are_refused(tiny_dlm, make_ids):
    ids_BT = make_ids(2, 6)
    for where_BT in (torch.ones(2, 5, dtype=torch.bool), torch.ones_like(ids_BT), ids_BT[0] > 0):
        with pytest.raises(ValueError, match=r"where_BT is torch.* \(2, 6\): give one bool for every id"):
            tiny_dlm.logits_at(ids_BT, where_BT)
    with pytest.raises(TypeError, match="where_BT="):
        tiny_dlm.logits_at(ids_BT, [[True] * 6] * 2)


def test_lists_are_refused(tiny_dlm, make_ids):
    ids = make_ids(2, 8).tolist()
    for use in (nelbo, score, Calibration, USES["diffusion"]["trace"]):
        arguments = (ids,) if use is Calibration else (tiny_dlm, ids)
        with pytest.raises(TypeError, match="=a list must be "):
            use(*arguments)
    with pytest.raises(TypeError, match="token ids are a list: tiny-diffusion takes a tensor of int64"):
        tiny_dlm.hidden(ids)


def test_a_cache_counts_towards_the_positions(make_family, make_ids):
    lm = make_family("llama-gqa", "autoregressive")
    assert decode(lm, make_ids(1, 60), 4).shape == (1, 64)
    with pytest.raises(ValueError, match="a sequence of 65 tokens exceeds the 64 positions"):
        decode(lm, make_ids(1, 60), 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_seen_anywhere(dtype, number):
    value = torch.linspace(-3, 3, 1001).to(dtype)
    assert is_finite(value) and is_finite(value[:0]) and is_finite(value[0])
    for place in (0, 1, 500, 1000):
        spoiled = value.clone()
        spoiled[place] = number
        assert not is_finite(spoiled)


def test_a_streamed_model_refuses_the_same(make_family, make_ids, tmp_path):
    folder = save(overflowing(make_family("llama-gqa")), tmp_path / "saved")
    lm = stream(open_checkpoint(folder), "streamed", torch.float16)

    with pytest.raises(ValueError, match=r"what streamed computes in .* is not finite"):
        nelbo(lm, make_ids(2, 8), draws=1)

    with pytest.raises(ValueError, match="not finite"):
        prune(lm, preset("unstable"), Calibration(make_ids(2, 8)), progress=False, work=tmp_path / "work")

    with pytest.raises(ValueError, match="a sequence of 66 tokens exceeds the 64 positions of streamed"):
        lm.hidden(make_ids(1, 66))

    with pytest.raises(ValueError, match="not in memory, so no keys can be hidden: use `load`"):
        hiding_model(lm, Hiding())

    with pytest.raises(ValueError, match="streamed from disk and cannot write token by token: use `load`"):
        lm.next_logits(make_ids(1, 2), None)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("part", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
def test_a_model_with_a_number_that_is_not_finite_is_not_pruned(tmp_path, part, streamed):
    write(PUBLIC["llama"], tmp_path / "public")
    lm = load(tmp_path / "public")
    lm.model.get_parameter(part).view(-1)[3] = torch.nan
    before = lm.fingerprint()
    folder = save(lm, tmp_path / "saved") if streamed else None

    def streamed_or_in_memory():
        if folder is None:
            return lm
        return stream(Checkpoint(folder), "tiny", torch.float32)  # which checks small parameters already

    with pytest.raises(ValueError, match=f"{part} of .* holds numbers that are not finite"):
        prune(streamed_or_in_memory(), preset("magnitude"), work=tmp_path / "work")
    assert not (tmp_path / "work").exists()
    assert streamed or lm.fingerprint() == before


@pytest.mark.parametrize("part", ["lm_head.weight", "model.layers.1.self_attn.q_proj.weight"])
def test_a_model_with_a_number_that_is_not_finite_is_not_loaded(tmp_path, part):
    write(PUBLIC["llama"], tmp_path / "public")
    lm = load(tmp_path / "public")
    lm.model.get_parameter(part).view(-1)[3] = torch.nan
    with pytest.raises(ValueError, match=f"{part} of .* holds numbers that are not finite"):
        load(save(lm, tmp_path / "saved"))


def test_a_likelihood_that_is_not_finite_is_refused(tiny_dlm, make_ids):
    tiny_dlm.model.get_parameter("model.norm.weight")[3] = torch.nan
    with pytest.raises(ValueError, match=r"what tiny-diffusion computes in torch\.float32 is not finite"):
        nelbo(tiny_dlm, make_ids(2, 8))
