"""DynamicViT's learned predictor."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.errors import PartError
from tokenred.core.info import ModelInfo
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, full_precision, through
from tokenred.core.values import Blocks, Positive
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.schedule import quarters
from tokenred.strategies.selectors.top_score import keep_best


@selectors.register("Predictor")
class Predictor(Selector):
    """A small network decides which tokens are kept (DynamicViT, Rao et al., NeurIPS 2021).

    Its input is each token together with the mean of the remaining tokens (section 3.2). At
    inference the tokens with the highest keep logits are kept. In training a hard Gumbel-softmax
    samples the decision: all tokens stay, and a differentiable mask marks those that would be
    removed (section 3.3); the score mod `PolicyMask` hides these from the others.

    Args:
        layers: blocks with their own network, ascending; None for the quarters of the depth (3, 6,
            9 of 12). Blocks in between use the previous network.
        temperature: τ of the Gumbel-softmax.
        gradient_limit: None as in the paper; or (our addition) a bound on the gradient of each
            image's loss with respect to a token's mask. The gradient of a masked key is
            ``e^s / Σ e^s`` over the unmasked keys: it is unbounded if the key would have taken
            nearly the whole row, although unmasking it changes the row by at most 1. In a small
            model with sharp attention such keys dominate, and in the end every token is kept. For
            losses that are means over the batch, without a loss scale (not with fp16).

    Shapes:
        memory in training: ``mask (b, N)``, 1 for kept tokens, prefix included;
            ``kept_share (b, S)``, the share of image tokens kept by each of the S stages so far.
    """

    layers: Blocks | None = None
    temperature: Positive = 1.0
    gradient_limit: Positive | None = None

    def build(self, info: ModelInfo) -> nn.Module:
        stages = (Stage(info.width) for _ in self._starts(info.depth))
        return nn.ModuleDict({"stages": nn.ModuleList(stages)})

    def _starts(self, depth: int) -> tuple[int, ...]:
        return quarters(depth) if self.layers is None else self.layers

    def learned_macs(self, info: ModelInfo, counts: tuple[int, ...]) -> float:
        c, half, quarter = info.width, *_widths(info.width)
        each = c * c + c * half + half * quarter + quarter * 2
        alive = (info.num_patches - sum(counts[:layer]) for layer in range(len(counts)))
        return float(sum(n * each for n, count in zip(alive, counts, strict=True) if count))

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        logits = self._logits(state, None)
        # Same order as the log-probabilities, but without ties between tokens that are certainly
        # kept.
        return keep_best(logits[..., 0] - logits[..., 1], count)

    def mask(self, state: TokenState, attention: AttentionStats, count: int) -> TokenState:
        b, p = state.x.shape[0], state.num_prefix
        memory = state.memory
        alive = memory["mask"][:, p:] if "mask" in memory else None
        odds = self._logits(state, alive).log_softmax(dim=-1)
        soft = F.gumbel_softmax(odds, tau=self.temperature)[..., 0]
        # Exactly 0 or 1, with the gradient of the soft decision.
        keep = (soft >= 0.5).to(soft.dtype) + (soft - soft.detach())
        keep = keep if alive is None else keep * alive
        kept = keep.mean(dim=1, keepdim=True)
        if "kept_share" in memory:
            kept = torch.cat((memory["kept_share"], kept), dim=1)
        mask = torch.cat((keep.new_ones(b, p), keep), dim=1)
        if self.gradient_limit is not None:
            # The share above keeps its full gradient.
            limit = self.gradient_limit / b
            if mask.requires_grad:
                mask.register_hook(lambda gradient: gradient.clamp(-limit, limit))
        return replace(state, memory={**memory, "kept_share": kept, "mask": mask})

    def _logits(
        self, state: TokenState, alive: Float[Tensor, "b n"] | None
    ) -> Float[Tensor, "b n 2"]:
        stage = max(0, sum(start <= state.layer for start in self._starts(state.depth)) - 1)
        if self.network is None:
            raise PartError("Predictor has no weights; use it in a wrapped model.")
        with full_precision(state.x.device):
            logits: Tensor = self.network.get_submodule(f"stages.{stage}")(state.image, alive)
        return logits.to(at_least_fp32(logits.dtype))


class Stage(nn.Module):
    """One network: maps a token's features and those of all tokens to two logits.

    Shapes:
        x: ``(b, n, c)`` image tokens.
        alive: ``(b, n)``, 0 for tokens excluded from the common features; None for none.
        returns: ``(b, n, 2)``, to keep and to drop.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = _widths(width)
        self.own = half
        self.embed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.decide = nn.Sequential(
            nn.Linear(width, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(),
            nn.Linear(quarter, 2),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(
        self, x: Float[Tensor, "b n c"], alive: Float[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n 2"]:
        """The logits."""
        # Without autocast the type must be set here.
        x = x.to(cast(nn.Linear, self.decide[0]).weight.dtype)
        own, common = through(self.embed, x).tensor_split((self.own,), dim=-1)
        if alive is None:
            mean = common.mean(dim=1, keepdim=True)
        else:
            weight = alive[..., None].to(common.dtype)
            # If no token remains, the sum is 0 anyway.
            mean = (common * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
        return through(self.decide, torch.cat((own, mean.expand_as(common)), dim=-1))


def _widths(width: int) -> tuple[int, int]:
    """The widths between ``c`` and 2: its half and its quarter."""
    return max(1, width // 2), max(1, width // 4)
