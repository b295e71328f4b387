"""The settings of a recovery: equal settings on equal weights and text are the same run, to the bit."""

from dataclasses import dataclass
from typing import Literal

from sinkprune_core.values import Count, Flag, Number, PositiveShare, Share, check_fields

RATES = {"full": 1e-4, "lora": 1e-3}  # learning rates where none is named


@dataclass(frozen=True)
class Recovery:
    """How a pruned model is trained. Raises ValueError, naming the field, for a value that cannot work."""

    steps: Count  # of the optimizer
    batch: Count = 8  # sequences per step
    length: Count = 128  # tokens per sequence
    method: Literal["full", "lora"] = "full"
    """Train the weights of the blocks and the last norm themselves, or low-rank products that are added to
    the linears where these are not zero."""
    rank: Count = 16  # of these products
    learning_rate: PositiveShare | None = None  # after warm-up; None: RATES of the method
    warmup: Share = 0.1  # share of the steps over which it rises from zero; then it falls to zero linearly
    distillation: Share = 0.0  # share of the loss that is the divergence from a teacher
    seed: Number = 0  # of the crops, of the noise and of LoRA's first matrices
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the products; what is trained is float32
    gradient_checkpointing: Flag = False  # compute blocks twice instead of keeping what they compute

    def __post_init__(self):
        check_fields(self)
        if self.length < 2:
            raise ValueError(f"length={self.length} must be at least 2: the first token is never predicted")
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", RATES[self.method])

    @property
    def batch_tokens(self) -> int:
        """Tokens per step."""
        return self.batch * self.length

    @property
    def tokens(self) -> int:
        """Tokens of all steps."""
        return self.steps * self.batch_tokens

    def rate(self, step: int) -> float:
        """Return the learning rate at `step`, counted from 0."""
        rising = max(1.0, self.warmup * self.steps)
        falling = max(1.0, self.steps - rising)
        highest = self.learning_rate or RATES[self.method]
        return highest * min((step + 1) / rising, (self.steps - step) / falling, 1.0)
