"""The record of one forward: where the tokens of every block came from."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.part import check_choice
from tokenred.core.state import Selection, TokenState
from tokenred.reduced.kept import FILLS, features_left, fill_grid, largest
from tokenred.reduced.recorder import Recorder, Taken, alive_tokens, own_patches


@dataclass(frozen=True, eq=False)
class Reduction:
    """One reduction: its block, its selection, and the fuser's weights.

    Attributes:
        layer: the block.
        selection: the tokens kept and removed.
        weights: ``(b, n', n)`` sparse, from the image tokens before to those after.
        left: ``(b, P, c)`` features of the removed tokens, when they were removed.
        left_index: ``(b, P)`` their positions.
    """

    layer: int
    selection: Selection
    weights: Tensor
    left: Float[Tensor, "b P c"]
    left_index: Int[Tensor, "b P"]


class Trace(Recorder):
    """What a forward did with the tokens. Created by `ReducedViT.run_with_trace`.

    Attributes:
        start: the tokens that entered the first block.
        states: the states after each block.
        steps: the reductions, in order.
        theta_error: share of attention entries kept − θ in each block, ``(b, h)``; empty at θ = 1.
        attention_maps: by block, see `attention`; empty unless requested.
        attention_index: by block, ``(b, n)`` positions of the image tokens in the block's map.
    """

    def __init__(self, wanted: AttentionStat | None = None, theta: float = 1.0) -> None:
        self._wanted, self._theta = wanted, theta
        kept = (AttentionStat.kept(),) if theta < 1 else ()
        self.looks = kept if wanted is None else (wanted, *kept)
        self.start: TokenState
        self.states: list[TokenState] = []
        self.steps: list[Reduction] = []
        self.theta_error: list[Float[Tensor, "b h"]] = []
        self.attention_maps: dict[int, Tensor] = {}
        self.attention_index: dict[int, Tensor] = {}

    def __repr__(self) -> str:
        counts = [self.start.num_tokens, *self.tokens_per_layer] if self.states else []
        return f"Trace({' → '.join(map(str, counts))} image tokens)"

    def _repr_html_(self) -> str:
        """The same for a notebook, as a table."""
        heads = "".join(f"<th>{block}</th>" for block in range(len(self.states)))
        cells = "".join(f"<td>{count}</td>" for count in self.tokens_per_layer)
        return (
            f"<table><tr><th>after block</th>{heads}</tr>"
            f"<tr><th>image tokens</th>{cells}</tr></table>"
        )

    def reduction(self, taken: Taken) -> None:
        matrix, alive = taken.matrix(), taken.selection.alive
        matrix = matrix if alive is None else matrix * alive[..., None]
        step = Reduction(taken.before.layer, taken.selection, matrix.to_sparse(), *taken.left())
        # Otherwise a checkpointed block, run again for the backward, must save the same tensors.
        if step.layer == len(self.states):
            self.steps.append(step)

    def attended(self, state: TokenState, attention: AttentionStats) -> None:
        if self._wanted is not None:
            self.attention_maps[state.layer] = attention[self._wanted]
            self.attention_index[state.layer] = state.index
        if self._theta < 1 and state.layer == len(self.states):
            self.theta_error.append(attention[AttentionStat.kept()] - self._theta)

    def block(self, state: TokenState) -> None:
        if state.layer < 0:
            self.start = state
        else:
            self.states.append(state)

    @property
    def grid(self) -> tuple[int, int]:
        return self.start.grid

    @property
    def token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the tokens at the end, or None where they form no rectangle."""
        return self.states[-1].token_grid

    @property
    def token_grid_per_layer(self) -> tuple[tuple[int, int] | None, ...]:
        """Rows and columns of the tokens after each block, or None."""
        return tuple(state.token_grid for state in self.states)

    @property
    def num_patches(self) -> int:
        return self.start.num_patches

    @property
    def num_prefix(self) -> int:
        return self.start.num_prefix

    @property
    def start_index(self) -> Int[Tensor, "b n"]:
        """Positions of the tokens that entered the first block."""
        return self.start.index

    @property
    def index(self) -> Int[Tensor, "b n"]:
        """Positions of the final tokens, −1 for one that represents no single patch."""
        return self.states[-1].index

    @property
    def index_per_layer(self) -> tuple[Int[Tensor, "b n"], ...]:
        """Positions after each block."""
        return tuple(state.index for state in self.states)

    @property
    def features(self) -> tuple[Float[Tensor, "b N c"], ...]:
        """Tokens after each block, prefix included."""
        return tuple(state.x for state in self.states)

    @property
    def tokens_per_layer(self) -> tuple[int, ...]:
        """Image tokens after each block."""
        return tuple(state.index.shape[1] for state in self.states)

    @property
    def alive_per_layer(self) -> tuple[Int[Tensor, "b"], ...]:
        """Image tokens of each image after each block, without padding."""
        return tuple(alive_tokens(state) for state in self.states)

    def attention(self, layer: int) -> Float[Tensor, "b *h N N"]:
        """The attention map of a block as applied to the values: after ``log s``, masks and θ.

        Rows and columns are the tokens that entered the block's attention, prefix first, at the
        positions `attention_index` says: ``(b, N, N)``, the mean over heads, or ``(b, h, N, N)``,
        as requested.

        Raises:
            ConfigError: for a block that does not exist or whose map was not recorded.
        """
        depth = len(self.states)
        if not -depth <= layer < depth:
            raise ConfigError(
                f"block {layer} was requested; the trace has blocks 0 to {depth - 1}."
            )
        if layer % depth not in self.attention_maps:
            raise ConfigError(
                f"no attention map of block {layer} was recorded. Request them: "
                "run_with_trace(images, attention='mean'), or 'heads' for each head."
            )
        return self.attention_maps[layer % depth]

    def cut(self, layer: int) -> Trace:
        """The trace up to the end of a block."""
        cut = copy(self)
        cut.states = self.states[: layer + 1]
        cut.steps = [step for step in self.steps if step.layer <= layer]
        cut.theta_error = self.theta_error[: layer + 1]
        cut.attention_maps = {k: v for k, v in self.attention_maps.items() if k <= layer}
        return cut

    def weights(self) -> Float[Tensor, "b n N0"]:
        """How much of each patch's feature is in each final token, over all reductions.

        Only fusers count, not the mixing by attention.
        """
        total = own_patches(self.start)
        for step in self.steps:
            total = step.weights.to_dense().to(total.dtype) @ total
        return total

    def owners(self) -> Int[Tensor, "b N0"]:
        """For each patch, the final image token with the largest weight from it (0 … n−1).

        −1 if nothing of it is left.
        """
        return largest(self.weights())

    def unreduce(
        self,
        tokens: Float[Tensor, "b m c"],
        fill: str = "last",
        *,
        norm: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "b N0 c"]:
        """Put tokens back on the full grid; each patch gets the token that owns it.

        Args:
            tokens: ``(b, n, c)`` final image tokens, or ``(b, p+n, c)`` with the prefix, which is
                ignored.
            fill: for patches that no token owns, see `KeptTokens.unreduce`.
            norm: applied to the recorded features, which come from inside the model, if ``tokens``
                come from after its final norm (``reduced.backbone.norm``).

        Raises:
            ConfigError: for another ``fill``.
            InputError: for another number of tokens, or another width than the recorded features.
        """
        check_choice(self, "fill", fill, FILLS)
        n = self.index.shape[1]
        if tokens.shape[1] == n + self.num_prefix:
            tokens = tokens[:, self.num_prefix :]
        if tokens.shape[1] != n:
            raise InputError(
                f"expected the {n} final image tokens, or {n + self.num_prefix} with the prefix; "
                f"got {tokens.shape[1]}."
            )
        left = [(step.left, step.left_index) for step in self.steps]
        last = features_left(left, self.num_patches, norm) if fill in ("last", "own") else None
        return fill_grid(tokens, self.index, self.owners(), self.grid, fill, last)
