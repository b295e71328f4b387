"""What notebook 01 knows of a model that continues prompts: its trace, and tables of its sinks."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch

from sinkprune_companion.experiments import sink_conditions, sink_measures
from sinkprune_companion.experiments.sink_conditions import Condition
from sinkprune_companion.run.records import Run
from sinkprune_core import LanguageModel, Sampler, Trace, trace

REVISION = 1  # of the tables
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
        by_source = sink_conditions.prompts(
            self.lm.tokenizer, self.condition, self.count, self.sampling["prompt_length"], self.seed
        )
        return torch.cat(list(by_source.values()))

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

        def compute() -> Trace:
            return trace(self.lm, prompts_BT, self.sampler, key["seed"], batch)

        return self.run.artifact(f"trace-{self.lm.kind}", Trace, compute, **key)

    def readings(self, sink_std: float, stability_threshold: float) -> pd.DataFrame:
        """Return the table of `sink_measures.by_reading`."""
        return self._table("readings", sink_measures.by_reading, sink_std, stability_threshold)

    def layers(self, sink_std: float, stability_threshold: float) -> pd.DataFrame:
        """Return the table of `sink_measures.by_layer`."""
        return self._table("layers", sink_measures.by_layer, sink_std, stability_threshold)

    def tokens(self, sink_std: float) -> pd.DataFrame:
        """Return the first 8 rows of `sink_measures.token_table`."""

        def measure(one: Trace, sink_std: float) -> pd.DataFrame:
            sinks_BSK = one.sinks(sink_std)
            table = sink_measures.token_table(one.ids_BSK, sinks_BSK, self.lm.tokenizer, one.visible_SK)
            return table.head(8)

        return self._table("tokens", measure, sink_std)

    def _table(self, name: str, measure: Callable[..., pd.DataFrame], *rule: float) -> pd.DataFrame:
        key = self._key(self.prompts_BT) | {"kind": self.lm.kind, "rule": rule}  # kinds may share weights
        frame = self.run.record(f"sink-{name}", lambda: measure(self.trace(), *rule), REVISION, **key)
        return frame.drop(columns=["model", "seed"])

    def _key(self, prompts_BT: torch.Tensor) -> dict[str, object]:
        seed = self.seed + self.trajectory
        prompts = prompts_BT.tolist()
        return {"model": self.fingerprint, "sampler": self.sampler, "prompts": prompts, "seed": seed}
