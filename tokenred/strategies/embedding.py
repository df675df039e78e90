"""The contract of embeddings."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from tokenred.core.part import Part

__all__ = ["Embedding"]


class Embedding(Part):
    """What a method adds to the tokens before the first block.

    Shapes:
        images: ``(b, ch, H, W)``.
        tokens: ``(b, N0, c)`` image tokens of the whole grid, positions included.
        returns: ``(b, N0, c)``, what is added to them.
    """

    @property
    def adds(self) -> bool:
        """Whether there is anything to add."""
        return True

    def __call__(
        self,
        images: Float[Tensor, "b ch H W"],
        tokens: Float[Tensor, "b N0 c"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "b N0 c"]:
        """What is added."""
        raise NotImplementedError
