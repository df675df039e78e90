"""Which training examples are easy: those that are learned once and not forgotten.

Tri-Level (Kong et al., AAAI 2023) drops such examples while it trains, by the counts of Toneva et
al., "An empirical study of example forgetting during deep neural network learning" (ICLR 2019).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tokenred.core.errors import ConfigError, InputError

__all__ = ["ForgettingCounts"]


class ForgettingCounts:
    """How often each example went from right to wrong between two of its presentations.

    Args:
        examples: how many the training set has.

    Attributes:
        counts: ``(examples,)`` times it was forgotten.
        seen: ``(examples,)`` presentations.
        learned: ``(examples,)`` whether it was ever right.
        right: ``(examples,)`` whether it was right the last time.
    """

    def __init__(self, examples: int) -> None:
        if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
            raise ConfigError(f"expected a number of examples from 1, got {examples!r}.")
        self.counts = torch.zeros(examples, dtype=torch.long)
        self.seen = torch.zeros(examples, dtype=torch.long)
        self.learned = torch.zeros(examples, dtype=torch.bool)
        self.right = torch.zeros(examples, dtype=torch.bool)

    def update(self, index: Int[Tensor, "b"], correct: Bool[Tensor, "b"]) -> None:
        """Note a batch, in which no example may come twice.

        Args:
            index: which examples.
            correct: whether the model was right about each.

        Raises:
            InputError: for tensors that do not fit, or an example that is not there or comes twice.
        """
        index, correct = index.detach().cpu().long(), correct.detach().cpu()
        if index.ndim != 1 or index.shape != correct.shape or correct.dtype != torch.bool:
            raise InputError(
                "expected numbers of examples (b,) and whether each was right (b,) as bool, got "
                f"{tuple(index.shape)} and {tuple(correct.shape)} of {correct.dtype}."
            )
        known = len(self.counts)
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < known):
            raise InputError(f"expected numbers of examples from 0 to {known - 1}, got {index}.")
        if len(index.unique()) < len(index):
            raise InputError("expected each example once in a batch; update twice instead.")
        self.counts[index] += (self.right[index] & ~correct).long()
        self.seen[index] += 1
        self.learned[index] |= correct
        self.right[index] = correct

    def easy(self, share: float) -> Int[Tensor, "k"]:
        """The examples to drop: the least often forgotten among those that were ever learned.

        What was never right counts as forgotten without end and is kept. Of examples that were
        forgotten equally often, the one seen more goes first, and then the lower number.

        Args:
            share: of all examples, in [0, 1); fewer are returned where fewer were ever learned.

        Returns:
            Their numbers, ascending, at most ``int(share · examples)``.

        Raises:
            ConfigError: for another share.
        """
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ConfigError(f"expected a share in [0, 1), got {share!r}.")
        known = self.learned.nonzero().flatten()
        # Two stable sorts: the first decides where the second leaves a tie.
        known = known[self.seen[known].sort(descending=True, stable=True).indices]
        known = known[self.counts[known].sort(stable=True).indices]
        return known[: int(share * len(self.counts) + 1e-9)].sort().values

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that is counted, for a checkpoint."""
        names = ("counts", "seen", "learned", "right")
        return {name: getattr(self, name).clone() for name in names}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            InputError: for the counts of another number of examples.
        """
        for name, own in self.state_dict().items():
            if name not in state or state[name].shape != own.shape:
                raise InputError(
                    f"expected {name!r} of {len(self.counts)} examples in the saved counts, got "
                    f"{tuple(state[name].shape) if name in state else 'nothing'}."
                )
        for name, own in self.state_dict().items():
            setattr(self, name, state[name].to(own).clone())
