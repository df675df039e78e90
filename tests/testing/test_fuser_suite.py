"""`check_fuser`: every fuser of the library passes, every planted fault is found and named."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from tokenred.attention import AttentionStats
from tokenred.core.errors import PartError
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.graphs import Graph
from tokenred.strategies.base import Fuser, fusers
from tokenred.strategies.transport import Transport
from tokenred.testing import check_fuser

NAMES = [entry.name for entry in fusers if entry.source.startswith("tokenred.")]


class Keep(Fuser):
    """Sound; the faults below change what it returns."""

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        return Transport(selection.keep, selection.drop)


class Faulty(Keep):
    def __call__(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> TokenState:
        after = self.transport(state, selection, graph, attention).apply(state)
        return self.spoil(state, after)

    def spoil(self, before: TokenState, after: TokenState) -> TokenState:
        return after


class LosesOne(Faulty):
    def spoil(self, before: TokenState, after: TokenState) -> TokenState:
        return replace(after, x=after.x[:, :-1])


class WrongType(Faulty):
    def spoil(self, before: TokenState, after: TokenState) -> TokenState:
        return replace(after, x=after.x.double())


class OldIndex(Faulty):
    def spoil(self, before: TokenState, after: TokenState) -> TokenState:
        return replace(after, index=before.index[:, : after.num_tokens])


class OldSizes(Faulty):
    def spoil(self, before: TokenState, after: TokenState) -> TokenState:
        return replace(after, size=before.size)


class FeedsPrefix(Faulty):
    def spoil(self, before: TokenState, after: TokenState) -> TokenState:
        prefix = after.prefix + before.image.mean(dim=1, keepdim=True)
        return replace(after, x=torch.cat((prefix, after.image), dim=1))


class Squares(Faulty):
    def spoil(self, before: TokenState, after: TokenState) -> TokenState:
        return replace(after, x=torch.cat((after.prefix, after.image.abs()), dim=1))


class MisreportedTransport(Transport):
    def matrix(self, tokens: int) -> torch.Tensor:
        return super().matrix(tokens) * 2


class WrongRecord(Keep):
    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        return MisreportedTransport(selection.keep, selection.drop)


class Detached(Faulty):
    def spoil(self, before: TokenState, after: TokenState) -> TokenState:
        return replace(after, x=torch.cat((after.prefix, after.image.detach()), dim=1))


class ForgetsSize(Keep):
    traits: ClassVar[Traits] = Traits(conserves_size=True)


class InPlace(Faulty):
    def spoil(self, before: TokenState, after: TokenState) -> TokenState:
        before.image.zero_()
        return after


class Dice(Faulty):
    def spoil(self, before: TokenState, after: TokenState) -> TokenState:
        return replace(after, x=torch.cat((after.prefix, after.image * torch.rand(())), dim=1))


class OverTheBatch(Keep):
    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        stay = selection.score.double().mean().expand(selection.keep.shape)
        return Transport(selection.keep, selection.drop, stay=stay)


class ByPlace(Keep):
    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        return Transport(selection.keep, selection.drop, stay=1.0 + selection.keep.double())


class SecretGrid(Keep):
    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        stay = torch.full(selection.keep.shape, float(state.grid[0]), dtype=torch.float64)
        return Transport(selection.keep, selection.drop, stay=stay)


class NeedsPartner(Keep):
    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        if selection.partner is None:
            raise PartError("partners, please")
        return Transport(selection.keep, selection.drop)


LAYOUT = "image tokens, with their positions and sizes"
FAULTS = [
    (LosesOne(), LAYOUT, "expected tokens of shape"),
    (WrongType(), LAYOUT, "expected tokens of .* torch.float32, got .* torch.float64"),
    (OldIndex(), LAYOUT, "expected index .* got"),
    (OldSizes(), LAYOUT, "expected sizes of shape"),
    (FeedsPrefix(), "prefix tokens neither move nor change", "before and after"),
    (Squares(), "linear in the tokens", "off by up to"),
    (WrongRecord(), "the weights that a trace records", "recorded weights × tokens"),
    (Detached(), "gradients reach every kept token", "no gradient|cut off"),
    (ForgetsSize(), "conserves_size: the sizes add up", "sums of the sizes"),
    (InPlace(), "inputs are not modified", "state.x was changed in place"),
    (OverTheBatch(), "an image is treated alone as in a batch", r"image \d alone"),
    (ByPlace(), "equivariant: permuting the tokens", "for permuted tokens"),
    (SecretGrid(), "the grid is not read", "called a single row"),
    (NeedsPartner(), LAYOUT, "PartError: partners, please"),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_fuser_keeps_its_promises(name: str) -> None:
    check_fuser(name, max_examples=10)


@pytest.mark.parametrize(
    ("fuser", "promise", "found"), FAULTS, ids=[type(fault[0]).__name__ for fault in FAULTS]
)
def test_a_planted_fault_is_found(fuser: Fuser, promise: str, found: str) -> None:
    name = type(fuser).__name__
    message = rf"(?s)fuser {name}\(\) breaks its contract.*{promise}.*(?:{found}).*example: .*P=\d"
    with pytest.raises(AssertionError, match=message):
        check_fuser(fuser)


def test_chance_in_a_fuser_is_found() -> None:
    # Whichever promise meets it first: no two runs agree.
    with pytest.raises(AssertionError, match=r"fuser Dice\(\) breaks its contract"):
        check_fuser(Dice())


@pytest.mark.parametrize("fuser", [Keep(), Faulty()], ids=["transport", "call"])
def test_a_sound_fuser_passes_however_it_is_written(fuser: Fuser) -> None:
    check_fuser(fuser)


def test_a_fuser_that_needs_partners_passes_with_them() -> None:
    check_fuser(NeedsPartner(), partners=True)
