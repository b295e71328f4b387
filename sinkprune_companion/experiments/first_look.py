"""What notebook 00 shows once and measures nowhere else: attention maps of a text, inputs of one linear map,
and what pruned models write.

Dimensions: L layer, H head, Q query, K key, S state of a text, T token, O output feature, I input feature.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from sinkprune.figures import trajectories
from sinkprune_companion.experiments.pruning_grid import seen_levels
from sinkprune_companion.experiments.sink_measures import KINDS
from sinkprune_companion.experiments.variants import Variant
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core import Calibration, LanguageModel, Recipe, Sampler
from sinkprune_core.diffusion.noise import corrupt
from sinkprune_core.diffusion.sampling import generate
from sinkprune_core.pruning.recipe import preset

WRITERS = ("wanda", "paper", "sparsegpt", "recommended")  # presets whose models write
SEQUENCES = 2  # of their calibration text, at several noise levels or as many tokens read once


def attention_maps(lm: LanguageModel, ids_1T: torch.Tensor) -> torch.Tensor:
    """Return all attention maps of a forward, float (L, H, Q, K)."""
    before = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")  # which keeps the maps
    with torch.inference_mode():
        layers = lm.model(ids_1T.to(lm.device), output_attentions=True, use_cache=False).attentions
    lm.model.set_attn_implementation(before)
    return torch.cat(layers).float().cpu()


def attention_panels(
    ar: LanguageModel, dlm: LanguageModel, text_T: torch.Tensor, shares: Sequence[float], seed: int
) -> list[dict]:
    """Return the map of one head for a text, as panels of `maps.plot_attention_maps`.

    The AR model reads the text as it is, the DLM with these shares of its tokens masked. The head, `layer`
    and `head` of every panel, is the one of the first third of the layers (later ones have heads that look at
    one key alone) whose sink is strong in all states of the DLM; it is not chosen for the AR model.
    """
    order_T = torch.randperm(len(text_T), generator=torch.Generator().manual_seed(seed))
    states = {KINDS[ar.kind]: (ar, text_T[None])}
    for share in shares:
        masked_T = corrupt(text_T, order_T < share * len(text_T), dlm.mask_token_id)
        states[f"{KINDS[dlm.kind]}, {share:.0%} masked"] = (dlm, masked_T[None])

    maps_LHQK = {name: attention_maps(lm, ids_1T) for name, (lm, ids_1T) in states.items()}
    strongest_LH = torch.stack([maps_LHQK[name].sum(2).amax(-1) for name in list(states)[1:]]).amin(0)
    early = max(1, len(strongest_LH) // 3)
    layer, head = divmod(int(strongest_LH[:early].argmax()), strongest_LH.shape[1])

    panels = []
    for name, (lm, ids_1T) in states.items():
        labels = trajectories.token_labels(lm.tokenizer, ids_1T[0])
        map_QK = maps_LHQK[name][layer, head].numpy()
        masked_K = (ids_1T[0] == dlm.mask_token_id).cpu().numpy()
        sees_QK = np.ones(map_QK.shape, dtype=bool)
        if lm.kind == ar.kind:
            sees_QK = np.tril(sees_QK)  # it looks backwards only

        about = {"layer": layer, "head": head, "ids_1T": ids_1T, "masked_K": masked_K}
        panels.append({"title": name, "map_QK": map_QK, "sees_QK": sees_QK, "labels": labels, **about})
    return panels


def noise_panel(
    lm: LanguageModel,
    text: Calibration,
    noised_ST: torch.Tensor,
    mass_ST: torch.Tensor,
    visible_ST: torch.Tensor,
    sinks_ST: torch.Tensor,
) -> dict:
    """Return the sinks of a text at several noise levels, as a panel of `plot_sink_positions`.

    `noised_ST` are the tokens of each state, of which the rows name the share that is masked.
    """
    masked_S = (noised_ST == lm.mask_token_id).float().mean(1).tolist()
    return {
        "title": f"{KINDS[lm.kind]}, text as pruning reads it",
        "rows": "tokens that are masked",
        "row_names": [f"{masked:.0%}" for masked in masked_S],
        "profile_SK": mass_ST.numpy(),
        "visible_SK": visible_ST.numpy(),
        "sinks_SK": sinks_ST.numpy(),
        "labels": trajectories.token_labels(lm.tokenizer, text.ids_NT[0]),
        "prompt_length": 0,
    }


def inputs_of(lm: LanguageModel, linear: nn.Module, ids_ST: torch.Tensor) -> torch.Tensor:
    """Return what a linear map reads in one forward pass, (S, T, I)."""
    seen = []
    hook = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        lm.hidden(ids_ST)
    hook.remove()
    return seen[0]


# what pruned models write


def writers(
    lm: LanguageModel, sparsities: Sequence[float], length: int, levels: int, seed: int
) -> Iterator[tuple[str, Recipe | None, Calibration | None]]:
    """Yield the name, recipe and calibration text of every model that writes, the dense one first.

    Recipes that read a text at `levels` noise levels get fewer sequences: all see about equally many tokens.
    """
    yield "dense", None, None

    for share in sparsities:
        for name in WRITERS:
            recipe = preset(name, sparsity=share)
            # at least two: the official recipe reads each at ten levels, 20 states beside 16 of the others
            sequences = max(SEQUENCES, SEQUENCES * levels // seen_levels(recipe))
            yield f"{name}, {share:.0%}", recipe, calibration_draw(lm, sequences, length, seed)


def written_text(run: Run, variant: Variant, prompt_BT: torch.Tensor, sampler: Sampler, seed: int) -> str:
    """Return what a variant of a model writes behind a prompt, in one line."""

    def write() -> pd.DataFrame:
        variant.ready()  # prunes the model until the variant's block ends
        return pd.DataFrame({"token": generate(variant.lm, prompt_BT, sampler, seed)[0].tolist()})

    key = {"prompt": prompt_BT[0].tolist(), "sampler": sampler, "seed": seed}
    tokens = run.record("written", write, **variant.key, **key).token.tolist()
    return " ".join(variant.lm.tokenizer.decode(tokens[prompt_BT.shape[1] :]).split())
