"""How alike tokens are, and how much of the dropped ones is lost: pure functions.

All of them take image tokens only, ``(b, n, c)``, and compute in fp32 or better whatever the type
of the tokens, also under autocast. A value that so few tokens cannot have is NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.core.tensors import at_least_fp32, unit_vectors
from tokenred.graphs import Graph
from tokenred.reduced.trace import Step, Trace

__all__ = [
    "TOKEN_STATISTICS",
    "effective_rank",
    "high_frequency",
    "lost_share",
    "mean_cosine",
    "unreached_share",
]


def mean_cosine(tokens: Float[Tensor, "b n c"]) -> Float[Tensor, " b"]:
    """Mean cosine similarity over all pairs of different tokens, −1 … 1; 1 = all alike.

    From the sum of the unit vectors u, ``(‖Σu‖² − Σ‖u‖²) / (n(n − 1))``, so it costs ``O(n·c)``.
    A zero vector counts as similarity 0 to all. NaN for a single token.

    Source: the quantity of GTP-ViT's Fig. 6 (Xu et al., WACV 2024).
    """
    unit = unit_vectors(tokens.detach())
    n = tokens.shape[1]
    total = unit.sum(dim=1).square().sum(dim=-1) - unit.square().sum(dim=(1, 2))
    return total / n / (n - 1) if n > 1 else torch.full_like(total, torch.nan)


def effective_rank(tokens: Float[Tensor, "b n c"]) -> Float[Tensor, " b"]:
    """How many directions the tokens use, 1 … min(n, c).

    ``exp(H(p))`` with ``p_i = σ_i / Σσ`` over the singular values of the ``n × c`` matrix, not
    centred, and H the entropy in nats. It can be no larger than the number of tokens: compare it
    at equal counts. 0 where all tokens are zero. ``O(n·c·min(n, c))``, in fp64.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality",
    EUSIPCO 2007.
    """
    x = tokens.detach().double()  # which autocast leaves alone
    gram = x @ x.transpose(1, 2) if x.shape[1] <= x.shape[2] else x.transpose(1, 2) @ x
    # The eigenvalues are σ²; those below 0 are rounding.
    sigma = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = sigma.sum(dim=-1, keepdim=True)
    p = sigma / torch.where(total > 0, total, 1)
    entropy = -torch.xlogy(p, p).sum(dim=-1)
    rank = torch.where(total[:, 0] > 0, entropy.exp(), 0)
    return rank.to(at_least_fp32(tokens.dtype))


def high_frequency(tokens: Float[Tensor, "b n c"]) -> Float[Tensor, " b"]:
    """Share of the energy ``Σ‖x‖²`` that is not in the mean of the tokens, 0 … 1; 0 = all alike.

    The mean is what a discrete Fourier transform over the tokens puts at frequency 0, and so the
    part that attention, a low-pass filter, leaves over in the end. 0 where all tokens are zero.

    Source: Wang et al., "Anti-Oversmoothing in Deep Vision Transformers via the Fourier Domain
    Analysis", ICLR 2022.
    """
    x = tokens.detach().to(at_least_fp32(tokens.dtype))
    rest = (x - x.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
    energy = x.square().sum(dim=(1, 2))
    return rest / torch.where(energy > 0, energy, 1)


def lost_share(step: Step) -> Float[Tensor, " b"]:
    """Share of the tokens dropped in a reduction of which nothing goes into any kept token.

    For GTP these are the tokens that no kept token has for a neighbour (or all, with α = 0); for
    pruning all of them; for merging and fusing none. NaN where nothing was dropped.
    """
    b, dropped = step.selection.drop.shape
    if not dropped:
        return torch.full((b,), torch.nan, device=step.selection.drop.device)
    reached = (step.weights.to_dense() != 0).any(dim=1)
    return 1 - reached.gather(1, step.selection.drop).float().mean(dim=1)


def unreached_share(graph: Graph, trace: Trace) -> list[Float[Tensor, " b"]]:
    """For each reduction, the share of the dropped tokens that no kept token has for a neighbour.

    Whatever the fuser did with them; under propagation these are the tokens lost.
    """
    shares = []
    for step in trace.steps:
        before = trace.index_per_layer[step.layer - 1] if step.layer else trace.start_index
        kept = before.gather(1, step.selection.keep)
        weights = graph.weights_between(kept, step.left_index)
        shares.append((weights == 0).all(dim=1).float().mean(dim=1))
    return shares


TOKEN_STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "cosine": mean_cosine,
    "effective_rank": effective_rank,
    "high_frequency": high_frequency,
}
"""By the name that frames give them."""
