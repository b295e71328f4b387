"""Attention on the states a model really visits while it generates.

For a diffusion model a step is a denoising step: every query runs again and the whole sequence attends. For a
causal model a query is computed once, when its token is the newest, so a step is a window of consecutive
queries. What such a window adds up to is a matter of reading; a trace keeps the sums apart.

Dimensions: B prompt, T position in a prompt, S step, K key position (= sequence position), L layer, H head.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import InstanceOf
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from sinkprune_core.diffusion.samplers import LLADA_SAMPLER, Sampler
from sinkprune_core.diffusion.sampling import decode, generate
from sinkprune_core.language_model import LanguageModel
from sinkprune_core.sinks import attention, detection
from sinkprune_core.values import Count, Flag, TokenIds, Whole, checked_arguments

ABOUT = "trace"  # the entry of a file that holds what is no tensor
BY_PROMPT = ("ids_BSK", "final_BK", "layers_BSLK", "prefix_BLK", "heads_BLHK")  # with a row per prompt


@dataclass(frozen=True)
class Trace:
    """Attention mass over a trajectory: what every key receives, summed over queries and divided by nothing.

    A key's mass is m(i) = sum of A[q, i] over queries q, as a mean over layers and heads; the official code's
    sum is this times layers times heads. Heads are averaged in `layers_BSLK`, which makes a trace of 1,024
    tokens, 48 steps and 30 layers 6 MB a prompt in float32 instead of 53.
    """

    ids_BSK: torch.Tensor
    """The state that each step attends to, int64."""

    final_BK: torch.Tensor
    """The finished text, int64."""

    layers_BSLK: torch.Tensor
    """Mass per layer from the queries of each step alone, mean over heads, float32.

    Of a diffusion model these are all queries, of a causal model those of the step's window.
    """

    prefix_BLK: torch.Tensor
    """Mass per layer from the queries before the first step, mean over heads, float32.

    Of a causal model these are the prompt's; a diffusion model has none, and zeros here.
    """

    heads_BLHK: torch.Tensor
    """Mass per head from all queries that exist at a step, mean over steps with the key, float32.
    """

    windows_S2: torch.Tensor
    """First query of each step and the one after its last, int64."""

    prompt_length: int
    """Tokens."""

    causal: bool
    """Whether a query sees no key after its own, and every query runs once."""

    @property
    def mass_BSLK(self) -> torch.Tensor:
        """Mass per layer from all queries that exist at a step, mean over heads, float32.

        This is the literal quantity m_t(i). Of a causal model it is the sum over the prompt's queries and all
        windows so far. Such a sum can only settle: step t changes it by one window of queries out of all
        before. So a causal sink that has once been strong stays strong, whatever the newest queries do; that
        favours the claim that only diffusion models' sinks move.
        """
        if not self.causal:
            return self.layers_BSLK
        return self.prefix_BLK[:, None] + self.layers_BSLK.cumsum(1)

    @property
    def mass_BSK(self) -> torch.Tensor:
        """The literal mass m_t(i), mean over layers and heads, float32; its mean over visible keys is 1."""
        return self.mass_BSLK.mean(2)

    @property
    def visible_SK(self) -> torch.Tensor:
        """Which keys exist at a step, bool: of a causal model those up to the step's last query."""
        position_K = torch.arange(self.final_BK.shape[1])
        return position_K < self.windows_S2[:, 1:]

    def sinks(self, sink_std: float = detection.SINK_STD) -> torch.Tensor:
        """Return which keys are sinks by the literal mass, bool (B, S, K), as `detection.sink_sets` says."""
        return detection.sink_sets(self.mass_BSK, self.visible_SK, sink_std)

    def save(self, file: Path | str) -> None:
        """Write the trace as safetensors, plainly: a caller that may be killed writes beside and renames."""
        tensors = {name: getattr(self, name).contiguous() for name in (*BY_PROMPT, "windows_S2")}
        about = json.dumps({"prompt_length": self.prompt_length, "causal": self.causal})
        save_file(tensors, file, metadata={ABOUT: about})  # several entries would be in no fixed order

    @classmethod
    def load(cls, file: Path | str) -> "Trace":
        """Read a trace that `save` wrote."""
        with safe_open(file, "pt") as handle:
            about = json.loads(handle.metadata()[ABOUT])
        return cls(**load_file(file), **about)


@checked_arguments
def trace(
    lm: InstanceOf[LanguageModel],
    prompt_BT: TokenIds,
    sampler: InstanceOf[Sampler] = LLADA_SAMPLER,
    seed: Whole = 0,
    batch: Count = 16,
    progress: Flag = True,
) -> Trace:
    """Generate from every prompt and record the attention of as many steps, whatever the kind of model.

    A causal model decodes `sampler.length` tokens at `sampler.temperature` (greedy at 0) and its generated
    queries are cut into `sampler.steps` windows, the last one taking up the remainder. Raises ValueError when
    there are fewer tokens than steps, for a sampler with guidance, without a prompt, for ids and numbers
    outside their ranges, and where what the model computes is not finite.
    """
    if len(prompt_BT) == 0:
        raise ValueError("prompt_BT holds no prompt: give at least one")
    if not lm.is_diffusion and sampler.steps > sampler.length:
        raise ValueError(
            f"steps={sampler.steps} exceed length={sampler.length}: a causal step is at least one query"
        )

    if sampler.guidance:
        raise ValueError(
            f"guidance={sampler.guidance} runs two forwards per step, whose attention would be mixed up: "
            "trace with guidance=0"
        )

    trace_batch = _trace_diffusion if lm.is_diffusion else _trace_causal
    starts = range(0, len(prompt_BT), batch)
    steps = len(starts) * sampler.steps

    parts = []
    with tqdm(total=steps, desc=f"trace {lm.name}", unit="step", disable=not progress, leave=False) as bar:
        for start in starts:
            part = trace_batch(lm, prompt_BT[start : start + batch], sampler, seed, start, bar)
            parts.append(part)

    return _joined(parts)


def _joined(parts: list[Trace]) -> Trace:
    """Return the traces of several batches of prompts as one."""

    def of_all(name: str) -> torch.Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    return replace(parts[0], **{name: of_all(name) for name in BY_PROMPT})


def _trace_diffusion(
    lm: LanguageModel, prompt_BT: torch.Tensor, sampler: Sampler, seed: int, first: int, bar: tqdm
) -> Trace:
    """Trace one batch of prompts, of which the first has number `first`; `bar` counts steps."""
    states = []
    layers = []

    heads_BLHK = torch.zeros(1)
    with attention.track(lm.model) as tracker:

        def watch(step: int, ids_BT: torch.Tensor) -> None:
            nonlocal heads_BLHK
            mass_BLHK = lm.check_output(tracker.take())[:, :, :, 0].cpu()
            states.append(ids_BT.clone())
            layers.append(mass_BLHK.mean(2))
            heads_BLHK = heads_BLHK + mass_BLHK / sampler.steps
            bar.update()

        final_BK = generate(lm, prompt_BT, sampler, seed, watch, first)

    layers_BSLK = torch.stack(layers, 1)
    return Trace(
        ids_BSK=torch.stack(states, 1),
        final_BK=final_BK,
        layers_BSLK=layers_BSLK,
        prefix_BLK=torch.zeros_like(layers_BSLK[:, 0]),
        heads_BLHK=heads_BLHK,
        windows_S2=torch.tensor([(0, final_BK.shape[1])] * sampler.steps),
        prompt_length=prompt_BT.shape[1],
        causal=False,
    )


@torch.inference_mode()
def _trace_causal(
    lm: LanguageModel, prompt_BT: torch.Tensor, sampler: Sampler, seed: int, first: int, bar: tqdm
) -> Trace:
    """Trace one batch of prompts, of which the first has number `first`; `bar` counts steps."""
    prompt_length = prompt_BT.shape[1]
    ids_BK = decode(lm, prompt_BT, sampler.length, sampler.temperature, seed, first)

    windows = query_windows(prompt_length, ids_BK.shape[1], sampler.steps)
    with attention.track(lm.model, [(0, prompt_length), *windows]) as tracker:
        lm.hidden(ids_BK)
        mass_BLHSK = lm.check_output(tracker.take()).cpu()  # the prompt's queries, then those of every step

    bar.update(sampler.steps)
    layers_BSLK = mass_BLHSK.mean(2).transpose(1, 2)
    return Trace(
        ids_BSK=ids_BK[:, None].expand(-1, sampler.steps, -1).contiguous(),
        final_BK=ids_BK,
        layers_BSLK=layers_BSLK[:, 1:].contiguous(),
        prefix_BLK=layers_BSLK[:, 0].contiguous(),
        heads_BLHK=_mean_so_far(mass_BLHSK, windows),
        windows_S2=torch.tensor(windows),
        prompt_length=prompt_length,
        causal=True,
    )


def _mean_so_far(mass_BLHSK: torch.Tensor, windows: attention.Windows) -> torch.Tensor:
    """Return the mean over steps of the mass from all queries so far, (B, L, H, K).

    Step 0 of `mass_BLHSK` stands for the prompt's queries. Mass that a step gives counts in it and in all
    later steps; the mean runs over the steps in which a key exists.
    """
    steps = len(windows)
    counted_S = torch.tensor([steps, *range(steps, 0, -1)], dtype=mass_BLHSK.dtype)
    total_BLHK = torch.einsum("blhsk,s->blhk", mass_BLHSK, counted_S)
    last_S1 = torch.tensor(windows)[:, 1:]
    exists_SK = torch.arange(mass_BLHSK.shape[-1]) < last_S1

    return total_BLHK / exists_SK.sum(0)


def query_windows(first: int, last: int, steps: int) -> list[tuple[int, int]]:
    """Cut the queries [first, last) into `steps` windows of equal width; the last takes up the remainder."""
    width = (last - first) // steps
    starts = [first + step * width for step in range(steps)]
    return list(zip(starts, [*starts[1:], last], strict=True))


def visible(length: int, windows: attention.Windows) -> torch.Tensor:
    """Return which keys every query of a causal window can see, bool (S, K).

    A key inside a window is seen by some of the window's queries only, its own among them: set against an
    even share, all of them would pass for sinks.
    """
    return torch.stack([torch.arange(length) <= first for first, _ in windows])
