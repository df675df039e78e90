"""Attention among the tokens that are not masked in training."""

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.score_mods import ScoreMod, gated_softmax, score_mods
from tokenred.core.state import TokenState
from tokenred.core.tensors import at_least_fp32
from tokenred.core.values import Magnitude


@score_mods.register("PolicyMask")
class PolicyMask(ScoreMod):
    """Hides masked keys, with a gradient for the mask (DynamicViT, Rao et al., NeurIPS 2021).

    ``A_ij = (e^{s_ij − max_j s_ij}·G_ij + ε/N) / (Σ_j e^{s_ij − max_j s_ij}·G_ij + ε)`` with
    ``G_ij`` the mask of key j, and 1 for the token itself (section 3.3). In fp32 or better, and in
    training only: at inference the kept tokens have been gathered, and attention is the usual one.
    It reads the ``mask`` of `Selector.mask`; before the first mask, all tokens are unmasked.

    Args:
        epsilon: ε. A masked key still gets ``ε/N`` of a row whose weights sum up to ``Σ + ε``.
    """

    epsilon: Magnitude = 1e-6

    in_training_only = True

    def normalize(
        self, logits: Float[Tensor, "b h N N"], state: TokenState
    ) -> Float[Tensor, "b h N N"] | None:
        mask = state.memory.get("mask")
        if mask is None:
            # Nothing is masked before the first stage, but ε acts there as well.
            return gated_softmax(logits, 1.0, self.epsilon)
        itself = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
        mask = mask.to(at_least_fp32(logits.dtype))
        seen = mask[:, None, None, :].masked_fill(itself, 1)
        return gated_softmax(logits, seen, self.epsilon)
