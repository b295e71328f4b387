"""FLOPs of one forward, from shapes; a multiply-add counts as two."""

from dataclasses import dataclass

from sinkprune_core.language_model import LanguageModel


@dataclass(frozen=True)
class ForwardCost:
    """FLOPs of one forward of one sequence, by part."""

    linears: float  # of the blocks, the only ones ever pruned
    attention: float  # products of queries with keys and of attention with values
    head: float

    @property
    def total(self) -> float:
        """The FLOPs of all parts."""
        return self.linears + self.attention + self.head

    def effective(self, sparsity: float) -> float:
        """Return the FLOPs that remain when zeros of the blocks' linears cost nothing."""
        return self.linears * (1 - sparsity) + self.attention + self.head


def forward_cost(lm: LanguageModel, length: int, positions: int) -> ForwardCost:
    """Return the FLOPs of a forward over `length` tokens with logits at `positions` of them, from shapes.

    Attention counts the full T x T products in both directions, as kernels without a causal shortcut do.
    """
    config = lm.model.config
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = config.num_attention_heads * head_width

    return ForwardCost(
        linears=2.0 * lm.prunable_weights * length,
        attention=float(len(lm.blocks) * 2 * 2 * length**2 * width),
        head=head_flops(lm, positions),
    )


def head_flops(lm: LanguageModel, positions: int) -> float:
    """Return the FLOPs of the logits at some positions."""
    return 2.0 * positions * lm.output_head.weight.numel()
