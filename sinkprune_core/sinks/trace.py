"""Attention on the states a model really visits while it generates.

For a diffusion model a step is a denoising step: every query runs again and the whole sequence attends. For a causal
model a query is computed once, when its token is the newest, so a step is a chunk of consecutive queries.

Dimensions: B prompt, S step, K key position (= sequence position), L layer, H head.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from sinkprune_core.diffusion.sampling import LLADA, Sampler, decode, generate
from sinkprune_core.files import atomic
from sinkprune_core.models.language_model import LanguageModel
from sinkprune_core.sinks import attention, detection


@dataclass(frozen=True)
class Trace:
    """Attention over a trajectory, in even shares (1 is even).

    `ids_BSK` int64: the state each step attends to. `final_BK` int64: the finished text. `layers_BSLK` float32: mean over heads. `heads_BLHK` float32: mean
    over steps. `visible_SK` bool: which keys all queries of a step can see. `prompt_length` in tokens.
    """

    ids_BSK: torch.Tensor
    final_BK: torch.Tensor
    layers_BSLK: torch.Tensor
    heads_BLHK: torch.Tensor
    visible_SK: torch.Tensor
    prompt_length: int

    @property
    def profile_BSK(self) -> torch.Tensor:
        """Mean over layers and heads: the sink profile."""
        return self.layers_BSLK.mean(2)

    def sinks(self, sink_std: float = 2.0) -> torch.Tensor:
        return detection.sink_sets(self.profile_BSK, self.visible_SK, sink_std)

    def save(self, file: Path | str) -> None:
        with atomic(file) as partial:
            tensors = {
                name: getattr(self, name).contiguous()
                for name in ("ids_BSK", "final_BK", "layers_BSLK", "heads_BLHK", "visible_SK")
            }
            save_file(tensors, partial, metadata={"prompt_length": str(self.prompt_length)})

    @classmethod
    def load(cls, file: Path | str) -> "Trace":
        with safe_open(file, "pt") as handle:
            prompt_length = int(handle.metadata()["prompt_length"])
        return cls(**load_file(file), prompt_length=prompt_length)


def trace(
    lm: LanguageModel,
    prompt_BT: torch.Tensor,
    sampler: Sampler = LLADA,
    seed: int = 0,
    batch: int = 16,
    progress: bool = True,
) -> Trace:
    """Generate from every prompt and record the attention of every step; both kinds of model give as many steps.

    A causal model decodes `sampler.length` tokens at `sampler.temperature` (greedy at 0) and its generated queries are
    cut into `sampler.steps` windows, the last one taking up the remainder. Raises ValueError when there are fewer
    tokens than steps.
    """
    if not lm.is_diffusion and sampler.steps > sampler.length:
        raise ValueError(
            f"steps={sampler.steps} exceed length={sampler.length}: a causal step is at least one query"
        )
    if sampler.guidance:
        raise ValueError(
            f"guidance={sampler.guidance} runs two forwards per step, whose attention would be mixed up: trace with guidance=0"
        )
    one = _trace_diffusion if lm.is_diffusion else _trace_causal
    starts = tqdm(
        range(0, len(prompt_BT), batch),
        desc=f"trace {lm.name}",
        unit="batch",
        disable=not progress,
        leave=False,
    )
    parts = [one(lm, prompt_BT[start : start + batch], sampler, seed, start) for start in starts]
    first = parts[0]
    joined = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("ids_BSK", "final_BK", "layers_BSLK", "heads_BLHK")
    }
    return Trace(**joined, visible_SK=first.visible_SK, prompt_length=first.prompt_length)


def _trace_diffusion(
    lm: LanguageModel, prompt_BT: torch.Tensor, sampler: Sampler, seed: int, first: int
) -> Trace:
    states, layers, heads = [], [], 0.0
    with attention.track(lm.model) as tracker:

        def watch(step: int, ids_BT: torch.Tensor) -> None:
            nonlocal heads
            mass_BLHK = tracker.take()[:, :, :, 0].cpu()  # the even share of a bidirectional key is 1
            states.append(ids_BT.clone())
            layers.append(mass_BLHK.mean(2))
            heads = heads + mass_BLHK / sampler.steps

        final_BK = generate(lm, prompt_BT, sampler, seed, watch, first)
    length = prompt_BT.shape[1] + sampler.length
    return Trace(
        torch.stack(states, 1),
        final_BK,
        torch.stack(layers, 1),
        heads,
        torch.ones(sampler.steps, length, dtype=torch.bool),
        prompt_BT.shape[1],
    )


def cumulative(trace: Trace) -> Trace:
    """Return a causal trace whose step sees all queries of the continuation so far, not only its own window.

    The stricter reading of a step for a causal model: statistics can only settle, as they do when mass is averaged.
    """
    length = trace.ids_BSK.shape[-1]
    windows = query_windows(trace.prompt_length, length, trace.ids_BSK.shape[1])
    even_SK = attention.even_share(length, windows, causal=True)
    total_SK = even_SK.cumsum(0)
    layers_BSLK = (trace.layers_BSLK * even_SK[:, None]).cumsum(1) / total_SK.masked_fill(
        total_SK == 0, torch.inf
    )[:, None]
    return replace(trace, layers_BSLK=layers_BSLK)


def visible(length: int, windows: attention.Windows) -> torch.Tensor:
    """Return which keys every query of a causal window can see, bool (S, K).

    Keys inside a window are seen by some of its queries only, each looking at itself among them: set against an even
    share they would all pass for sinks.
    """
    return torch.stack([torch.arange(length) <= first for first, _ in windows])


def query_windows(first: int, last: int, steps: int) -> list[tuple[int, int]]:
    """Cut the queries [first, last) into `steps` windows of equal width, the last one taking up the remainder."""
    width = (last - first) // steps
    return [
        (first + step * width, last if step == steps - 1 else first + (step + 1) * width)
        for step in range(steps)
    ]


@torch.inference_mode()
def _trace_causal(
    lm: LanguageModel, prompt_BT: torch.Tensor, sampler: Sampler, seed: int, first: int
) -> Trace:
    start, length = prompt_BT.shape[1], prompt_BT.shape[1] + sampler.length
    ids_BT = decode(lm, prompt_BT, sampler.length, sampler.temperature, seed, first)
    windows = query_windows(start, length, sampler.steps)
    even_SK = attention.even_share(length, windows, causal=True)
    with attention.track(lm.model, windows) as tracker:
        lm.hidden(ids_BT)
        mass_BLHSK = tracker.take().cpu() / even_SK.masked_fill(even_SK == 0, torch.inf)
    ids_BSK = ids_BT[:, None].expand(-1, sampler.steps, -1)
    return Trace(
        ids_BSK.contiguous(),
        ids_BT,
        mass_BLHSK.mean(2).transpose(1, 2),
        mass_BLHSK.mean(3),
        visible(length, windows),
        start,
    )
