import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenred.core.state import TokenState
from tokenred.strategies.transport import Transport

B, C = 2, 5


def state_of(tokens: int, prefix: int) -> TokenState:
    return TokenState(
        x=torch.randn(B, prefix + tokens, C, dtype=torch.float64),
        num_prefix=prefix,
        grid=(1, tokens),
        index=torch.arange(tokens).expand(B, tokens),
        size=torch.rand(B, prefix + tokens, dtype=torch.float64) + 0.5,
    )


def split(tokens: int, gone: int) -> tuple[Tensor, Tensor]:
    order = torch.stack([torch.randperm(tokens) for _ in range(B)])
    return order[:, gone:].sort().values, order[:, :gone].sort().values


@settings(deadline=None, max_examples=60)
@given(
    tokens=st.integers(1, 9),
    data=st.data(),
    prefix=st.integers(0, 3),
    extra=st.integers(0, 2),
    moves=st.booleans(),
    stays=st.booleans(),
    own_sizes=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_applying_is_the_matrix(
    tokens: int,
    data: st.DataObject,
    prefix: int,
    extra: int,
    moves: bool,
    stays: bool,
    own_sizes: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    gone = data.draw(st.integers(0, tokens - 1))
    keep, drop = split(tokens, gone)
    kept = tokens - gone
    extra = extra if moves else 0
    move = torch.rand(B, kept + extra, gone, dtype=torch.float64) if moves else None
    stay = torch.rand(B, kept, dtype=torch.float64) if stays else None
    size_move = torch.rand(B, kept + extra, gone, dtype=torch.float64) if own_sizes else None
    if own_sizes and not moves:
        extra, size_move = 0, None
    carried = Transport(keep, drop, move, stay, size_move, extra)
    before = state_of(tokens, prefix)
    after = carried.apply(before)

    expected = carried.matrix(tokens).double() @ before.x[:, prefix:]
    assert torch.equal(after.x[:, :prefix], before.x[:, :prefix])
    torch.testing.assert_close(after.x[:, prefix:], expected)
    assert before.size is not None
    assert after.size is not None
    of_sizes = Transport(keep, drop, size_move if own_sizes and moves else move, None, None, extra)
    sizes = of_sizes.matrix(tokens).double() @ before.size[:, prefix:, None]
    assert torch.equal(after.size[:, :prefix], before.size[:, :prefix])
    torch.testing.assert_close(after.size[:, prefix:], sizes[..., 0])
    assert torch.equal(after.index[:, :kept], keep)
    assert (after.index[:, kept:] == -1).all()


@pytest.mark.parametrize("moves", [True, False])
def test_gradients_reach_what_moves(moves: bool) -> None:
    torch.manual_seed(1)
    before = state_of(5, 1)
    before.x.requires_grad_(True)
    keep, drop = split(5, 2)
    move = torch.ones(B, 3, 2, dtype=torch.float64) if moves else None
    Transport(keep, drop, move).apply(before).x.sum().backward()
    gradient = before.x.grad
    assert gradient is not None
    reached = gradient[:, 1:].gather(1, drop[..., None].expand(-1, -1, C))
    assert reached.eq(3.0 if moves else 0.0).all()
