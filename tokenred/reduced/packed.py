"""Batches of images with different numbers of tokens: what each token computes by itself, packed.

Attention runs on padded batches, with the padding masked. Norms, projections and MLPs take the
tokens of all images in one row without the padding, so that they cost the mean number of tokens
and not the largest.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import QKV
from tokenred.backbones.base import BlockAdapter
from tokenred.core.capture import is_eager, replace
from tokenred.core.state import TokenState

# Above this share of tokens, copying costs as much as it saves.
_FULL = 0.97


@dataclass(frozen=True, eq=False)
class Packing:
    """A block for packed batches; ``places`` are those of the tokens among ``b·N`` padded ones."""

    block: BlockAdapter
    places: Int[Tensor, " t"]
    batch: int

    def packed(self, x: Float[Tensor, "b N *c"]) -> Float[Tensor, "1 t *c"]:
        """The tokens in one row."""
        return x.flatten(0, 1).index_select(0, self.places)[None]

    def padded(self, x: Float[Tensor, "1 t *c"], like: Tensor) -> Float[Tensor, "b N *c"]:
        """The tokens of each image, and zeros."""
        out = x.new_zeros(self.batch * like.shape[1], *x.shape[2:])
        return out.index_copy_(0, self.places, x[0]).view(self.batch, like.shape[1], *x.shape[2:])

    def qkv_of(self, state: TokenState) -> QKV:
        """See `BlockAdapter.qkv_of`."""
        qkv = self.block.qkv_of(replace(state, x=self.packed(state.x)))
        if qkv.carry or qkv.bias is not None:  # which are not known token by token
            return self.block.qkv_of(state)
        q, k, v = (
            self.padded(each.transpose(1, 2), state.x).transpose(1, 2)
            for each in (qkv.q, qkv.k, qkv.v)
        )
        return replace(qkv, q=q, k=k, v=v)

    def after_attention(self, x: Tensor, out: Tensor, qkv: QKV) -> Tensor:
        """See `BlockAdapter.after_attention`."""
        if qkv.carry or qkv.bias is not None:
            return self.block.after_attention(x, out, qkv)
        heads = self.packed(out.transpose(1, 2)).transpose(1, 2)
        return self.padded(self.block.after_attention(self.packed(x), heads, qkv), x)

    def after_mlp(self, x: Tensor) -> Tensor:
        """See `BlockAdapter.after_mlp`."""
        return self.padded(self.block.after_mlp(self.packed(x)), x)


def packing_of(block: BlockAdapter, state: TokenState) -> Packing | None:
    """The block for a packed batch, or None where packing does not pay.

    It does not on a GPU, which would wait for the places, nor in a compiled or exported graph; and
    hooks and rotary positions rely on the padded shape.
    """
    size, x = state.size, state.x
    if size is None or x.device.type != "cpu" or not is_eager():
        return None
    if state.positions is not None or block.hooked or x.shape[0] < 2:
        return None
    places = (size > 0).flatten().nonzero()[:, 0]
    if places.shape[0] > _FULL * size.numel():
        return None
    return Packing(block, places, x.shape[0])
