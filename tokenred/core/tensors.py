"""Common tensor operations, and the precision of scores and similarities."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from tokenred.core.capture import is_eager
from tokenred.core.errors import no_device

# A float32 is the sum of three bfloat16; these are the pairs whose products matter in float32.
_PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0))


def at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    """The dtype for scores and weights."""
    return torch.promote_types(dtype, torch.float32)


def check_device(device: str | torch.device) -> torch.device:
    """The device; a ConfigError if PyTorch does not know it or the machine lacks it."""
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise no_device(device, str(error).strip().splitlines()[0].partition(". ")[0]) from error
    return chosen


def finest(x: Tensor) -> Tensor:
    """In float64, where the device has it: for choices that build on one another."""
    return x.to(at_least_fp32(x.dtype)) if x.device.type == "mps" else x.double()


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast on this device, or None if it is off."""
    kind = device.type  # some devices (meta) have no autocast
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Disable autocast on this device."""
    if autocast_dtype(device) is None:
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def product(
    left: Float[Tensor, "*b m k"], right: Float[Tensor, "*b k n"]
) -> Float[Tensor, "*b m n"]:
    """``left @ right`` in fp32 or better, for the similarities and scores that select tokens.

    Neither autocast nor TF32 nor bfloat16 products (`torch.set_float32_matmul_precision`) round the
    factors: if the user allows them, each factor is split into a sum of three 8-bit numbers, which
    these products do not round. No flag is changed. This takes six times the arithmetic, at the
    speed of the faster products.
    """
    dtype = torch.promote_types(at_least_fp32(left.dtype), right.dtype)
    left, right = left.to(dtype), right.to(dtype)
    with full_precision(left.device):
        if dtype != torch.float32 or not rounds():
            return left @ right
        first, second = _thirds(left), _thirds(right)
        rows = torch.cat([first[i] for i, _ in _PAIRS], dim=-1)
        return rows @ torch.cat([second[i] for _, i in _PAIRS], dim=-2)


def multiply(
    left: Float[Tensor, "m r k"], right: Float[Tensor, "m k n"], out: Float[Tensor, "m r n"]
) -> None:
    """`product` in fp32 or better into existing memory."""
    if left.dtype == torch.float32 and rounds():
        out.copy_(product(left, right))
    elif len(left) == 1:  # a batch of one runs on one thread
        torch.mm(left[0], right[0], out=out[0])
    else:
        torch.bmm(left, right, out=out)  # which autocast does not change


def through(layers: Iterable[nn.Module], x: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n d"]:
    """The layers applied to ``x``, with a `product` in each linear one: for learned scores."""
    for layer in layers:
        if isinstance(layer, nn.Linear) and x.dtype == torch.float32 and rounds():
            x = product(x, layer.weight.mT) + layer.bias
        else:
            x = layer(x)
    return x


def rounds() -> bool:
    """Whether PyTorch may round factors of fp32 products, per kind of device."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set through PyTorch 2.9's names, which cannot be read here
        return True


# `torch.compiler.assume_constant_result`, without importing the compiler and Triton. PyTorch
# recompiles when the setting changes.
rounds._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _thirds(x: Tensor) -> list[Tensor]:
    """8-bit numbers that sum to x."""
    parts = []
    for _ in range(3):
        parts.append(x.to(torch.bfloat16).to(x.dtype))
        x = x - parts[-1]
    return parts


def as_map(tokens: Float[Tensor, "b n c"], grid: tuple[int, int]) -> Float[Tensor, "b c gh gw"]:
    """Tokens in raster order as a feature map."""
    across = tokens.transpose(1, 2)
    return across.reshape(*across.shape[:2], *grid).contiguous()


def gather_tokens(
    tokens: Shaped[Tensor, "b n c"], places: Int[Tensor, "b k"]
) -> Shaped[Tensor, "b k c"]:
    """Gather the tokens at these indices, chosen per image.

    Full rows are copied, several times faster than ``gather`` with an index per entry. Tokens
    should be contiguous, otherwise they are copied first.
    """
    b, n, c = tokens.shape
    if is_eager() and b == 1:
        return F.embedding(places, tokens[0])
    rows = places + first_rows(tokens).unsqueeze(1)
    return F.embedding(rows, tokens.reshape(b * n, c))


def first_rows(tokens: Shaped[Tensor, "b n c"], skip: int = 0) -> Int[Tensor, " b"]:
    """Where the tokens of each image begin among those of all, after ``skip`` of them."""
    b, n, _ = tokens.shape
    if is_eager() and n:
        return torch.arange(skip, skip + b * n, n, device=tokens.device)
    return torch.arange(b, device=tokens.device) * n + skip


def unit_vectors(x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    """Each token scaled to unit norm, in fp32 or better; a zero vector stays zero."""
    return F.normalize(x.to(at_least_fp32(x.dtype)), dim=-1, eps=1e-12)


def cosines(
    x: Float[Tensor, "b n c"], rows: Int[Tensor, "b r"], columns: Int[Tensor, "b k"]
) -> Float[Tensor, "b r k"]:
    """Cosine similarities between the tokens at some indices and those at others; no gradient."""
    unit = unit_vectors(x.detach())
    return product(gather_tokens(unit, rows), gather_tokens(unit, columns).transpose(-2, -1))


def weighted_mean(
    x: Float[Tensor, "b n c"], weight: Float[Tensor, "b n"]
) -> Float[Tensor, "b 1 c"]:
    """The weighted mean of the tokens; the plain mean if all weights are 0."""
    total = weight.sum(dim=1, keepdim=True)
    some = torch.where(total > 0, total, 1)
    share = torch.where(total > 0, weight / some, 1 / weight.shape[1])
    return product(share[:, None], x).to(x.dtype)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """The first 16 hex digits of a SHA-256 over names, types, shapes and values of weights."""
    running = hashlib.sha256()
    for name, value in sorted(state.items()):
        value = value.detach().cpu().contiguous()
        running.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # As bytes, since NumPy has no bfloat16.
        running.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return running.hexdigest()[:16]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set all modules to eval mode inside the block, and restore their modes afterwards."""
    # The base of a reduced model is not a child.
    roots = [m for m in (model, vars(model).get("base")) if isinstance(m, nn.Module)]
    before = [(module, module.training) for root in roots for module in root.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
