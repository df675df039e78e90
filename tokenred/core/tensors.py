"""Operations that every second part needs, and the precision that choices are made in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

__all__ = [
    "at_least_fp32",
    "autocast_dtype",
    "full_precision",
    "gather_tokens",
    "multiply",
    "product",
    "rounds",
    "unit_vectors",
    "weighted_mean",
]

# A float32 is the sum of three bfloat16. Pairs of them whose products a float32 can tell apart.
_PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0))


def at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    """The type to compute scores and weights in."""
    return torch.promote_types(dtype, torch.float32)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast casts to on this device, or None where it is off."""
    kind = device.type  # some devices (meta) know no autocast
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast on this device: tensors are computed in the type they have."""
    if autocast_dtype(device) is None:
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def product(
    left: Float[Tensor, "*b m k"], right: Float[Tensor, "*b k n"]
) -> Float[Tensor, "*b m n"]:
    """``left @ right`` in fp32 or better: the similarities and scores that tokens are chosen by.

    Neither autocast nor TF32 nor bfloat16 products (`torch.set_float32_matmul_precision`) round
    the factors: where the user allows them, each factor is a sum of three numbers of 8 bits, which
    they leave as they are. No flag is changed. Six times the arithmetic then, at the speed that
    was asked for.
    """
    dtype = torch.promote_types(at_least_fp32(left.dtype), right.dtype)
    left, right = left.to(dtype), right.to(dtype)
    with full_precision(left.device):
        if dtype != torch.float32 or not rounds():
            return left @ right
        first, second = _thirds(left), _thirds(right)
        return torch.cat([first[i] for i, _ in _PAIRS], dim=-1) @ torch.cat(
            [second[i] for _, i in _PAIRS], dim=-2
        )


def multiply(
    left: Float[Tensor, "m r k"], right: Float[Tensor, "m k n"], out: Float[Tensor, "m r n"]
) -> None:
    """`product` of fp32 or better into memory that is there."""
    if left.dtype == torch.float32 and rounds():
        out.copy_(product(left, right))
    elif len(left) == 1:  # a batch of one runs on one thread
        torch.mm(left[0], right[0], out=out[0])
    else:
        torch.bmm(left, right, out=out)  # which autocast leaves alone


def rounds() -> bool:
    """Whether factors of fp32 products may be rounded, on some kind of device."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set by names of PyTorch 2.9, which this one does not read
        return True


# `torch.compiler.assume_constant_result`, which would import the compiler and Triton. PyTorch
# compiles anew when the setting changes.
rounds._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _thirds(x: Tensor) -> list[Tensor]:
    """Numbers of 8 bits that sum to x."""
    parts = []
    for _ in range(3):
        parts.append(x.to(torch.bfloat16).to(x.dtype))
        x = x - parts[-1]
    return parts


def gather_tokens(
    tokens: Shaped[Tensor, "b n c"], places: Int[Tensor, "b k"]
) -> Shaped[Tensor, "b k c"]:
    """The tokens at these places, one choice an image.

    Whole rows are copied, several times faster than ``gather`` with an index for each entry; give
    contiguous tokens, or they are copied first.
    """
    b, n, c = tokens.shape
    first = torch.arange(b, device=tokens.device) * n
    return F.embedding(places + first.unsqueeze(1), tokens.reshape(b * n, c))


def unit_vectors(x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    """Each token scaled to length 1, in fp32 or better; a zero vector stays zero."""
    return F.normalize(x.to(at_least_fp32(x.dtype)), dim=-1, eps=1e-12)


def weighted_mean(
    x: Float[Tensor, "b n c"], weight: Float[Tensor, "b n"]
) -> Float[Tensor, "b 1 c"]:
    """The weighted mean of the tokens; the plain one where all weights are 0."""
    total = weight.sum(dim=1, keepdim=True)
    some = torch.where(total > 0, total, 1)
    share = torch.where(total > 0, weight / some, 1 / weight.shape[1])
    return product(share[:, None], x).to(x.dtype)
