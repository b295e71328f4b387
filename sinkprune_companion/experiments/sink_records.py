"""What notebook 01 knows of a model that continues prompts: its trace, and tables of its sinks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import torch

from sinkprune.models.loading import load
from sinkprune_companion.experiments import random_null, sink_conditions, sink_measures
from sinkprune_companion.experiments.sink_conditions import Condition
from sinkprune_companion.run.records import Run
from sinkprune_companion.run.texts import calibration_draw
from sinkprune_core import LanguageModel, Sampler, Trace, trace

REVISION = 1  # of the tables
CALIBRATION_LENGTH = 128  # tokens of a sequence of calibration text
BATCH_TOKENS = {"diffusion": 768, "autoregressive": 4096}  # memory grows with them, and with logits most


@dataclass(frozen=True)
class Continued:
    """A model that continues `count` prompts of a condition, on one trajectory each."""

    run: Run
    lm: LanguageModel
    fingerprint: str
    condition: Condition
    count: int
    sampling: dict[str, object]  # arguments of `sink_conditions.sampler_of`
    seed: int  # of the choice of prompts
    trajectory: int = 0

    @property
    def prompts_BT(self) -> torch.Tensor:
        """The prompts, int64."""
        given = (self.count, self.sampling["prompt_length"], self.seed)
        return torch.cat(list(sink_conditions.prompts(self.lm.tokenizer, self.condition, *given).values()))

    @property
    def sampler(self) -> Sampler:
        """What writes; an autoregressive model knows no order of denoising, and no sampler but one."""
        name = self.condition.sampler if self.lm.is_diffusion else "llada"
        return sink_conditions.sampler_of(replace(self.condition, sampler=name), **self.sampling)

    def trace(self, first: int | None = None) -> Trace:
        """Return the trace, tens of megabytes, of all prompts or of the `first` ones: the same for them."""
        prompts_BT = self.prompts_BT[:first]
        batch = max(1, BATCH_TOKENS[self.lm.kind] // self.condition.tokens)
        key = self._key(prompts_BT)
        given = (self.lm, prompts_BT, self.sampler, key["seed"], batch)
        return self.run.artifact(f"trace-{self.lm.kind}", Trace, lambda: trace(*given), **key)

    def readings(self, sink_std: float, stability_threshold: float) -> pd.DataFrame:
        """Return the table of `sink_measures.by_reading`."""
        return self._table("readings", sink_measures.by_reading, sink_std, stability_threshold)

    def layers(self, sink_std: float, stability_threshold: float) -> pd.DataFrame:
        """Return the table of `sink_measures.by_layer`."""
        return self._table("layers", sink_measures.by_layer, sink_std, stability_threshold)

    def tokens(self, sink_std: float) -> pd.DataFrame:
        """Return the first 8 rows of `sink_measures.token_table`."""

        def measure(one: Trace, sink_std: float) -> pd.DataFrame:
            given = (one.ids_BSK, one.sinks(sink_std), self.lm.tokenizer, one.visible_SK)
            return sink_measures.token_table(*given).head(8)

        return self._table("tokens", measure, sink_std)

    def _table(self, name: str, measure: Callable[..., pd.DataFrame], *rule: float) -> pd.DataFrame:
        key = self._key(self.prompts_BT) | {"kind": self.lm.kind, "rule": rule}  # kinds may share weights
        frame = self.run.record(f"sink-{name}", lambda: measure(self.trace(), *rule), REVISION, **key)
        return frame.drop(columns=["model", "seed"])

    def _key(self, prompts_BT: torch.Tensor) -> dict[str, object]:
        seed = self.seed + self.trajectory
        prompts = prompts_BT.tolist()
        return {"model": self.fingerprint, "sampler": self.sampler, "prompts": prompts, "seed": seed}


@dataclass(frozen=True)
class Counts:
    """How much is measured of every model."""

    prompts: int  # of the main condition, and of the same with a first token
    trajectories: int  # of each of them
    other_prompts: int  # of every other condition
    calibration: int  # sequences of text as pruning sees it
    noise_levels: int  # at which each of them is seen


@dataclass
class Measured:
    """What notebook 01 knows of its models: tables of sinks, and traces for its pictures, by kind."""

    models: dict[str, LanguageModel] = field(default_factory=dict)
    traces: dict[str, Trace] = field(default_factory=dict)  # of four prompts of the main condition
    by_prompt: list[pd.DataFrame] = field(default_factory=list)  # under every condition and reading
    by_layer: list[pd.DataFrame] = field(default_factory=list)  # of the main condition, as is what follows
    by_token: list[pd.DataFrame] = field(default_factory=list)
    at_noise: list[pd.DataFrame] = field(default_factory=list)  # of calibration text


def measure(
    run: Run,
    models: dict[str, str],
    conditions: Sequence[Condition],
    sampling: dict[str, object],
    counts: Counts,
    rule: tuple[float, float],
    seed: int,
    dtype: str,
) -> Measured:
    """Return what is measured of models, given by kind, under all conditions, of which the first is main.

    Models are loaded one after another, and keep names and tokenizers alone. `rule` has the standard
    deviations of a sink and the share of steps of a stable one. Of the kind `base` a trace is all.
    """
    main = conditions[0]
    found = Measured()
    for kind, name in models.items():
        lm = found.models[kind] = load(name, dtype, run.device)
        fingerprint = lm.fingerprint()
        of_main = Continued(run, lm, fingerprint, main, counts.prompts, sampling, seed)
        found.traces[kind] = of_main.trace(first=4)

        if kind in sink_measures.SHORT:
            for condition in conditions:
                is_full = condition.body == main.body  # the main one, with or without the first token
                about = {"condition": condition.name(main) or "main", "what": condition.label}
                about |= {"tokens": condition.tokens, "kind": kind}
                for trajectory in range(counts.trajectories if is_full else 1):
                    prompts = counts.prompts if is_full else counts.other_prompts
                    given = (condition, prompts, sampling, seed, trajectory)
                    one = Continued(run, lm, fingerprint, *given)
                    found.by_prompt.append(one.readings(*rule).assign(**about))

            found.by_layer.append(of_main.layers(*rule).assign(kind=kind))
            found.by_token.append(of_main.tokens(rule[0]).assign(kind=kind))

            text = calibration_draw(lm, max(2, counts.calibration), CALIBRATION_LENGTH, seed)
            given = (run, lm, fingerprint, text, counts.noise_levels, *rule)
            states = random_null.stability_at_noise(*given)
            where = f"calibration text, {CALIBRATION_LENGTH} tokens"
            found.at_noise.append(states.assign(kind=kind, where=where))

        lm.model.to("meta")  # its room is for the next one: its weights are not needed any more
    return found


def untrained(
    run: Run,
    models: dict[str, LanguageModel],
    seeds: int,
    condition: Condition,
    prompts: int,
    sampling: dict[str, object],
    rule: tuple[float, float],
    seed: int,
    dtype: str,
) -> pd.DataFrame:
    """Return the readings of models of the same shapes with random weights, by `kind` and `seed` of these."""
    parts = []
    for number in range(seeds):
        for kind in sink_measures.SHORT:
            lm = random_null.with_random_weights(models[kind], number, dtype, run.device)
            one = Continued(run, lm, lm.fingerprint(), condition, prompts, sampling, seed)
            parts.append(one.readings(*rule).assign(kind=kind, seed=number))
    return pd.concat(parts)
