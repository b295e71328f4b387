"""The forward process of masked diffusion: how many tokens of a text are masked, and which ones.

Dimensions: B batch, T sequence position, S noisings of one sequence.
"""

import torch


def shifted_grid(draws: int, rng: torch.Generator) -> torch.Tensor:
    """Return noise levels in [0, 1), float64 (S,): an even grid, shifted by one uniform number."""
    shift = torch.rand(1, generator=rng, dtype=torch.float64)
    grid_S = torch.arange(draws, dtype=torch.float64) / draws
    return (shift + grid_S) % 1


def stratified_counts(draws: int, maskable: int, rng: torch.Generator) -> torch.Tensor:
    """Return numbers of masks for `draws` noisings of a sequence, int64 (S,), each uniform on 1 … maskable.

    They lie on a `shifted_grid`, so that they cover all noise levels. LLaDA's evaluation stratifies in the
    same way (its section on conditional likelihood).
    """
    return 1 + (shifted_grid(draws, rng) * maskable).long()


def even_split(items: int, parts: int) -> list[int]:
    """Return how many of `items` each of `parts` gets, as even as can be, the larger shares first."""
    share, rest = divmod(items, parts)
    return [share + 1] * rest + [share] * (parts - rest)


def random_mask(maskable_T: torch.Tensor, count: int, rng: torch.Generator) -> torch.Tensor:
    """Return a bool mask (T,) of exactly `count` positions drawn without replacement from `maskable_T`.

    Raises ValueError when there are fewer maskable positions.
    """
    candidates = maskable_T.nonzero().squeeze(-1)
    if not 0 <= count <= len(candidates):
        raise ValueError(f"count={count} masks do not fit {len(candidates)} maskable positions")

    drawn = candidates[torch.randperm(len(candidates), generator=rng)[:count]]
    where_T = torch.zeros_like(maskable_T)
    where_T[drawn] = True
    return where_T


def corrupt(ids_BT: torch.Tensor, where_BT: torch.Tensor, mask_token_id: int) -> torch.Tensor:
    """Return `ids_BT` with the mask token at the positions `where_BT`."""
    return torch.where(where_BT, mask_token_id, ids_BT)
