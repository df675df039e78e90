"""Pooling in which some tokens count more than others."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.core.tensors import at_least_fp32, weighted_mean

__all__ = ["attend_latent", "average", "stand_in"]


def average(
    x: Float[Tensor, "b n c"], weight: Float[Tensor, "b n"], maximum: bool = False
) -> Float[Tensor, "b 1 c"]:
    """The weighted mean as a single token; with ``maximum`` halfway to the largest values."""
    mean = weighted_mean(x, weight)
    return (mean + stand_in(x, weight).amax(dim=1, keepdim=True)) / 2 if maximum else mean


def stand_in(x: Float[Tensor, "b n c"], weight: Float[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
    """Tokens of weight 0 as copies of one of the others, which no maximum can tell apart."""
    first = weight.argmax(dim=1)
    one = x[torch.arange(x.shape[0], device=x.device), first][:, None]
    return torch.where(weight[..., None] > 0, x, one)


def attend_latent(
    pool: Any, x: Float[Tensor, "b n c"], weight: Float[Tensor, "b n"]
) -> Float[Tensor, "..."]:
    """``AttentionPoolLatent`` of timm over tokens that count as often as their weights say.

    ``Σ_j w_j e^{s_j} v_j / Σ_j w_j e^{s_j}``, which a token of weight 2 enters as two equal ones.
    """
    b, _, c = x.shape
    if pool.pos_embed is not None:
        x = x + pool.pos_embed.unsqueeze(0).to(x.dtype)
    heads = pool.num_heads, pool.head_dim
    q = pool.q(pool.latent.expand(b, -1, -1)).unflatten(-1, heads).transpose(1, 2)
    k, v = pool.kv(x).unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4).unbind(0)
    scores = (pool.q_norm(q) * pool.scale) @ pool.k_norm(k).transpose(-2, -1)
    scores = scores.to(at_least_fp32(scores.dtype))
    # Where nobody is left all count alike.
    weight = torch.where(weight.sum(dim=1, keepdim=True) > 0, weight, 1)[:, None, None]
    highest = scores.masked_fill(weight <= 0, -torch.inf).amax(dim=-1, keepdim=True)
    # What is left out may be far above the rest.
    share = (scores - highest).clamp_max(0).exp() * weight
    share = share / share.sum(dim=-1, keepdim=True)
    x = pool.proj_drop(pool.proj((share.to(v.dtype) @ v).transpose(1, 2).reshape(b, -1, c)))
    if pool.mlp is not None:
        x = x + pool.mlp(pool.norm(x))
    if pool.pool == "token":
        return x[:, 0]
    return x.mean(dim=1) if pool.pool == "avg" else x
