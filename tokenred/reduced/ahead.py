"""Merge an attention map before it is applied."""

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import gather_tokens
from tokenred.strategies.base import Fuser
from tokenred.strategies.transport import Transport


def values_spread(
    transport: Transport, v: Float[Tensor, "b h M d"], state: TokenState
) -> Float[Tensor, "b h N d"]:
    """The merged tokens' values, one for each key before merging.

    Attending to these is like attending to ``v`` with a map whose columns were summed by group: the
    column of a removed token is distributed as the token is, and lost if it joins none.
    """
    share, rows = _shares(transport, v.dtype), v.transpose(1, 2).flatten(2)
    places = torch.cat((state.places(transport.keep), transport.drop + state.num_prefix), dim=1)
    if share is None:
        gone = rows.new_zeros(rows.shape[0], transport.drop.shape[1], rows.shape[2])
    else:
        gone = share.transpose(1, 2) @ rows[:, rows.shape[1] - share.shape[1] :]
    rows = torch.cat((rows[:, : places.shape[1] - gone.shape[1]], gone), dim=1)
    # Where the values of each token before are now; whole rows are copied, not single entries.
    at = torch.arange(places.shape[1], device=places.device).expand_as(places)
    found = at.new_zeros(at.shape[0], state.x.shape[1]).scatter(1, places, at)
    b, h, _, d = v.shape
    return gather_tokens(rows, found).view(b, found.shape[1], h, d).transpose(1, 2)


def columns_merged(
    transport: Transport, maps: Float[Tensor, "b h N N"], state: TokenState
) -> Float[Tensor, "b h N M"]:
    """The same for explicit maps: their columns, summed."""
    m = state.num_prefix + transport.keep.shape[1] + transport.extra
    units = torch.eye(m, dtype=maps.dtype, device=maps.device).expand(maps.shape[0], 1, m, m)
    return maps @ values_spread(transport, units, state)


def rows_merged(
    fuser: Fuser,
    transport: Transport,
    state: TokenState,
    selection: Selection,
    attention: AttentionStats,
    rows: Float[Tensor, "b h N d"],
) -> Float[Tensor, "b h M d"]:
    """The rows of an attention map, or of its output, fused as if they were tokens."""
    b, h, n, d = rows.shape
    probe = replace(state, x=rows.transpose(1, 2).reshape(b, n, h * d))
    if fuser.linear:
        made = transport.apply(probe).x
    else:
        made = fuser(probe, selection, state.graph, attention).x
    return made.view(b, made.shape[1], h, d).transpose(1, 2)


def _shares(transport: Transport, dtype: torch.dtype) -> Float[Tensor, "b m P"] | None:
    """How each removed token is distributed; sums to 1, or to 0 if it joins none."""
    move = transport.move if transport.size_move is None else transport.size_move
    if move is None:
        return None
    total = move.sum(dim=1, keepdim=True)
    return (move / torch.where(total == 0, 1, total)).to(dtype)
