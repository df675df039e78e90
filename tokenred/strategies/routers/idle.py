"""Tokens that idle and come back later."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import QKV, AttentionStat, AttentionStats
from tokenred.core.capture import replace
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import TokenState
from tokenred.core.tensors import at_least_fp32, product
from tokenred.core.values import Blocks, Share, Shares
from tokenred.strategies.base import Router, routers
from tokenred.strategies.schedule import check_each, exact


@routers.register("idle")
class Idle(Router):
    """Tokens that CLS attends to pass the block, the others idle (IdleViT, Xu et al., AJCAI 2023).

    The choice is made again in each block from all tokens, by the head-mean pre-softmax logits of
    CLS. Idle tokens are passed on unchanged and none is lost. In training all tokens take part; a
    mask hides the idle keys and reverts the block's effect on idle tokens, so the numbers are the
    same.

    Args:
        keep_ratios: keep rate ρ relative to the N0 tokens, of which ``int(ρ·N0)`` pass; one number
            for ρ, ρ², ρ³ in three stages, or one for each of `layers`.
        layers: the blocks, ascending; None for the paper's (4-11 of 12 in stages of three, 4-15 of
            16 in stages of four), scaled with the depth.
        cut: the token cut loss collected in training: ``"both"``, ``"inter"``, ``"intra"`` or
            ``"none"`` (see `token_cut`).

    Shapes:
        memory in training: ``idle_mask (b, N)``, 1 for the tokens that passed the last of these
            blocks, prefix included; ``token_cut (b, L)``, the loss in each of the L blocks so far
            with idle tokens, if requested.
    """

    traits = Traits(needs_cls=True)

    keep_ratios: Share | Shares = 0.7
    layers: Blocks | None = None
    cut: Literal["both", "inter", "intra", "none"] = "both"

    def __post_init__(self) -> None:
        check_each(self, "keep_ratios", self.layers)

    preview = (AttentionStat.logits_row("cls", "mean"),)

    def active(self, layer: int, depth: int, patches: int) -> int | None:
        stage = max(1, depth // 4)
        first = depth // 3 if depth <= 12 else depth // 4
        layers = tuple(range(first, depth)) if self.layers is None else self.layers
        if layer not in layers:
            return None
        if isinstance(self.keep_ratios, tuple):
            share = exact(self.keep_ratios[layers.index(layer)])
        else:
            share = exact(self.keep_ratios) ** ((layer - layers[0]) // stage + 1)
        passing = max(1, int(share * patches))
        return None if passing >= patches else passing

    def with_budget(self, share: Fraction) -> Router:
        several = isinstance(self.keep_ratios, tuple)
        ratio = float(share)
        return replace(self, keep_ratios=(ratio,) * len(self.layers or ()) if several else ratio)

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        # Queries, keys and values of idle tokens too, before it is known which tokens pass.
        return float(removed * 3 * info.width**2 + tokens * info.width)

    def mask(
        self, state: TokenState, qkv: QKV, count: int
    ) -> tuple[Float[Tensor, "b N"], TokenState]:
        score = qkv.stats(self.preview, state)[self.preview[0]]
        front = torch.ones(score.shape[0], state.num_prefix, device=score.device)
        image = torch.zeros(score.shape, device=score.device)
        mask = torch.cat((front, image.scatter(1, self._chosen(score, count), 1)), dim=1)
        memory = {**state.memory, "idle_mask": mask}
        if self.cut != "none":
            loss = token_cut(mean_logits(qkv), mask, state.num_prefix, self.cut)[:, None]
            if (before := memory.get("token_cut")) is not None:
                loss = torch.cat((before, loss), dim=1)
            memory["token_cut"] = loss
        return mask, replace(state, memory=memory)

    def _chosen(self, score: Float[Tensor, "b n"], count: int) -> Int[Tensor, "b k"]:
        order = score.sort(dim=1, descending=True, stable=True).indices
        return order[:, :count].sort(dim=1).values

    def split(
        self, state: TokenState, preview: AttentionStats, count: int
    ) -> tuple[TokenState, Mapping[str, Tensor]]:
        chosen = self._chosen(preview[self.preview[0]], count)
        return state.take(chosen), {"places": state.places(chosen)}

    def join(
        self,
        before: TokenState,
        active: TokenState,
        resting: Mapping[str, Tensor],
        attention: AttentionStats,
    ) -> TokenState:
        places = resting["places"][..., None].expand(-1, -1, before.x.shape[2])
        x = before.x.scatter(1, places, active.x)
        grid = before.token_grid
        return replace(active, x=x, index=before.index, size=before.size, token_grid=grid)


def token_cut(
    logits: Float[Tensor, "b N N"],
    mask: Float[Tensor, "b N"],
    num_prefix: int = 1,
    cut: str = "both",
) -> Float[Tensor, "b"]:
    """How far the attention crosses the cut, per image.

    With ``W = softmax(logits)`` and the mask m (1 for the prefix and the chosen, 0 for the idle)::

        inter: mean_i e_i²          e_i = Σ_j |m_i − m_j| W_ij   over image tokens j
        intra: mean_i (u_i − m_i)²  u_i = Σ_j m_i m_j W_ij       over all tokens j

    The mask is a constant; the gradient goes to the logits. In fp32 or better.

    Args:
        logits: pre-softmax attention, the mean over heads.
        mask: which tokens are chosen.
        num_prefix: ``p``; the prefix is on both sides of the cut.
        cut: ``"inter"``, ``"intra"`` or ``"both"``, the sum of the two.

    Source: IdleViT (Xu et al., AJCAI 2023, arXiv 2310.05654), the token cut loss.
    """
    wide = at_least_fp32(logits.dtype)
    weights, m = logits.to(wide).softmax(dim=-1), mask.detach().to(wide)
    total = weights.new_zeros(weights.shape[0])
    if cut in ("inter", "both"):
        apart = (m[:, :, None] - m[:, None, num_prefix:]).abs()
        total = total + (apart * weights[..., num_prefix:]).sum(dim=-1).square().mean(dim=1)
    if cut in ("intra", "both"):
        within = m * (weights * m[:, None, :]).sum(dim=-1)
        total = total + (within - m).square().mean(dim=1)
    return total


def mean_logits(qkv: QKV) -> Float[Tensor, "b N N"]:
    """Pre-softmax attention of a block, averaged over heads, without a map per head."""
    q, k = (t.transpose(1, 2).flatten(2) for t in (qkv.q, qkv.k))
    return product(q, k.transpose(-2, -1)) * (qkv.scale / qkv.q.shape[1])
