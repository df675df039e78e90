"""What a forward costs, in closed form, at the token counts that really run.

One multiply-accumulate (MAC) is one multiplication and one addition. The overhead of a method
(graph, matching, propagation) is reported beside the cost and never added to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenred.core.info import ModelInfo

__all__ = ["Cost", "LayerCost", "block_macs"]


@dataclass(frozen=True)
class LayerCost:
    """One block: image tokens in, removed and out, tokens it processed, MACs."""

    layer: int
    tokens_in: int
    removed: int
    tokens_out: int
    active: int
    macs: float
    overhead: float


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        layers: one entry a block.
        stem, head: MACs of embedding, and of pooling and classifier.
        learned: MACs of parts with weights; they count.
        overhead: MACs spent on choosing and fusing; they do not.
    """

    layers: tuple[LayerCost, ...]
    stem: float
    head: float
    learned: float
    overhead: float

    @property
    def gmacs(self) -> float:
        """Cost of the backbone and the learned parts, in 10⁹ MACs."""
        return (self.stem + self.head + self.learned + sum(x.macs for x in self.layers)) / 1e9

    @property
    def overhead_gmacs(self) -> float:
        """The overhead, in 10⁹ MACs."""
        return (self.overhead + sum(x.overhead for x in self.layers)) / 1e9


def block_macs(
    info: ModelInfo, layer: int, tokens_in: int, tokens_out: int, where: str = "after_attention"
) -> float:
    """MACs of a block: ``4Nc² + 2N²c`` for the attention, ``2·ratio·N'c²`` for the MLP.

    Args:
        info: the model.
        layer: which block.
        tokens_in, tokens_out: image tokens before and after the block's reduction.
        where: whether the reduction comes between attention and MLP or before the block.
    """
    block, p = info.blocks[layer], info.num_prefix
    n_attention = p + (tokens_out if where == "before_block" else tokens_in)
    n_mlp = n_attention if block.parallel else p + tokens_out
    return float(
        n_attention * block.attention_per_token
        + n_attention**2 * block.attention_per_pair
        + n_mlp * block.mlp_per_token
    )
