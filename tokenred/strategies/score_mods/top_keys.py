"""Tri-Level's mask: each token attends only to the keys it attended to most."""

from fractions import Fraction

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.attention.score_mods import ScoreMod, gated_softmax, score_mods
from tokenred.core.capture import replace
from tokenred.core.info import ModelInfo
from tokenred.core.part import check_blocks
from tokenred.core.state import Selection, TokenState
from tokenred.core.values import Blocks, Count, Magnitude, Share
from tokenred.strategies.schedule import exact, quarters

_KEY = "top_keys"
_MAP = AttentionStat.map("mean")


@score_mods.register("TopKeys")
class TopKeys(ScoreMod):
    """Image tokens attend to their best ``⌈r·n⌉`` image keys (Tri-Level, Kong et al., AAAI 2023).

    The mask is computed in a block that removes tokens: after its attention and selection, from its
    head-mean map among the ``n`` kept image tokens. It applies to the following blocks, up to and
    including the next such block, which computes a new one. Rows and columns of prefix tokens, and
    of tokens added by a fuser, are not masked. The mask multiplies ``exp(logits)`` before
    normalisation; masked entries are computed anyway, so it saves time only on hardware that skips
    them.

    Ties go to the lower position.

    Args:
        ratio: r in (0, 1].
        after: the blocks that compute a mask, one or several, ascending; None for the quarters of
            the depth (3, 6, 9 of 12).
        epsilon: ε of ``(e·G + ε/N) / (Σe·G + ε)``, in all blocks, with G the mask. 0 for none.
        reference: follow the authors' code, which keeps every entry that is at least the k-th
            largest: a row with fewer than k entries left by the previous mask is entirely unmasked.

    Shapes:
        memory: ``top_keys (b, n, n)``, which image keys each image token sees.
    """

    version = 2

    ratio: Share = 0.3
    after: Count | Blocks | None = None
    epsilon: Magnitude = 0.0
    reference: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.after, int):
            object.__setattr__(self, "after", (self.after,))

    def check(self, info: ModelInfo) -> None:
        super().check(info)
        check_blocks(self, self._makers(info.depth), info.depth)

    def _makers(self, depth: int) -> tuple[int, ...]:
        return self.after if isinstance(self.after, tuple) else quarters(depth)

    def active(self, layer: int, depth: int) -> bool:
        return self.epsilon > 0 or (self.ratio < 1 and layer > self._makers(depth)[0])

    @property
    def follows(self) -> bool:
        return self.ratio < 1

    def requires(self, layer: int, depth: int) -> tuple[AttentionStat, ...]:
        return (_MAP,) if self.ratio < 1 and layer in self._makers(depth) else ()

    def follow(
        self, state: TokenState, attention: AttentionStats, selection: Selection | None
    ) -> TokenState:
        p, keep = state.num_prefix, None if selection is None else selection.keep
        held = state.memory.get(_KEY)
        if (seen := attention.values.get(_MAP)) is not None:
            among = _at(seen[:, p:, p:].detach(), keep)
            size = None if state.size is None else state.size[:, p : p + among.shape[1]]
            held = self._best(among, size)
        elif held is None:
            return state
        else:
            held = _at(held, keep)
        if extra := state.num_tokens - held.shape[1]:
            held = F.pad(held, (0, extra, 0, extra), value=True)
        return replace(state, memory={**state.memory, _KEY: held})

    def _best(
        self, among: Float[Tensor, "b n n"], size: Float[Tensor, "b n"] | None
    ) -> Bool[Tensor, "b n n"]:
        """The largest entries of each row, without padding."""
        n, share = among.shape[-1], exact(self.ratio)
        ranks = torch.arange(n, device=among.device)
        if size is None:
            best = ranks < _ceil(share, n)
        else:
            alive = size > 0
            among = among.masked_fill(~alive[:, None], -1)
            # For images with fewer tokens; Python integers cannot overflow.
            counts = torch.tensor([_ceil(share, i) for i in range(n + 1)], device=among.device)
            best = ranks < counts[alive.sum(dim=1)][:, None, None]
        values, order = among.sort(dim=-1, descending=True, stable=True)
        best = best.expand_as(order)
        if self.reference:
            return among >= values.masked_fill(~best, torch.inf).amin(dim=-1, keepdim=True)
        return torch.zeros_like(best).scatter(-1, order, best)

    def _mask(self, state: TokenState) -> Bool[Tensor, "b 1 N N"] | None:
        """The entries of the logits that are kept; None for all."""
        p, held = state.num_prefix, state.memory.get(_KEY)
        return None if held is None else F.pad(held, (p, 0, p, 0), value=True)[:, None]

    def __call__(
        self, logits: Float[Tensor, "b h N N"], state: TokenState
    ) -> Float[Tensor, "b h N N"]:
        on = None if self.epsilon > 0 else self._mask(state)
        return logits if on is None else logits.masked_fill(~on, -torch.inf)

    def normalize(
        self, logits: Float[Tensor, "b h N N"], state: TokenState
    ) -> Float[Tensor, "b h N N"] | None:
        if self.epsilon == 0:
            return None
        on = self._mask(state)
        return gated_softmax(logits, 1.0 if on is None else on, self.epsilon)


def _ceil(share: Fraction, n: int) -> int:
    return -(-share.numerator * n // share.denominator)


def _at(square: Tensor, places: Int[Tensor, "b k"] | None) -> Tensor:
    """Rows and columns at these positions, chosen per image."""
    if places is None:
        return square
    rows = square.gather(1, places[:, :, None].expand(-1, -1, square.shape[2]))
    return rows.gather(2, places[:, None, :].expand(-1, places.shape[1], -1))
