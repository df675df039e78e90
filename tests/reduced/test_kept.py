"""Kept tokens: places, order, and the way back to the grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tokenred.core.errors import ConfigError, InputError
from tokenred.reduced.kept import FILLS

# A grid of 2×3; the second image has a fused token (−1) and one place of padding.
KEPT = tr.KeptTokens(
    tokens=torch.arange(1.0, 9.0).reshape(2, 4, 1),
    index=torch.tensor([[5, 0, 2, 4], [-1, 3, -1, 1]]),
    size=torch.tensor([[1.0, 2.0, 1.0, 1.0], [0.0, 1.0, 4.0, 1.0]]),
    alive=torch.tensor([[True, True, True, True], [False, True, True, True]]),
    prefix=torch.zeros(2, 1, 1),
    grid=(2, 3),
)
OWNED = replace(
    KEPT,
    owner=torch.tensor([[1, 1, 2, -1, 3, 0], [2, 3, 2, 1, -1, 2]]),
    left=torch.full((2, 6, 1), 50.0),
)


def _model(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    tiny = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    return VisionTransformer(**{**tiny, "num_classes": 5, **options}).eval()


def _images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 32, 24, generator=torch.Generator().manual_seed(1))


def test_place() -> None:
    assert KEPT.place.tolist() == [
        [[1, 2], [0, 0], [0, 2], [1, 1]],
        [[-1, -1], [1, 0], [-1, -1], [0, 1]],
    ]


def test_sorted() -> None:
    found = OWNED.sorted()
    assert found.index.tolist() == [[0, 2, 4, 5], [1, 3, -1, -1]]
    assert found.alive.tolist() == [[True] * 4, [True, True, True, False]]
    assert found.tokens[..., 0].tolist() == [[2, 3, 4, 1], [8, 6, 7, 5]]
    assert found.size.tolist() == [[2, 1, 1, 1], [1, 1, 4, 0]]
    # Each patch still has the same owner's feature.
    for fill in FILLS:
        assert torch.equal(found.unreduce(fill), OWNED.unreduce(fill))
    assert KEPT.sorted().owner is None


@pytest.mark.parametrize(
    ("kept", "fill", "expected"),
    [
        (KEPT, "zero", [[2, 0, 3, 0, 4, 1], [0, 8, 0, 6, 0, 0]]),
        (KEPT, "nearest", [[2, 2, 3, 2, 4, 1], [8, 8, 8, 6, 8, 8]]),
        (KEPT, None, [[2, 2, 3, 2, 4, 1], [8, 8, 8, 6, 8, 8]]),
        (OWNED, "zero", [[2, 2, 3, 0, 4, 1], [7, 8, 7, 6, 0, 7]]),
        (OWNED, "last", [[2, 2, 3, 50, 4, 1], [7, 8, 7, 6, 50, 7]]),
        (OWNED, None, [[2, 2, 3, 50, 4, 1], [7, 8, 7, 6, 50, 7]]),
        (OWNED, "own", [[2, 50, 3, 50, 4, 1], [50, 8, 50, 6, 50, 50]]),
        (OWNED, "nearest", [[2, 2, 3, 2, 4, 1], [7, 8, 7, 6, 8, 7]]),
    ],
)
def test_unreduce(kept: tr.KeptTokens, fill: str | None, expected: list[list[float]]) -> None:
    full = kept.unreduce(fill)
    assert full[..., 0].tolist() == expected
    found = kept.dense(fill)
    assert found.shape == (2, 1, 2, 3)
    assert found.flatten(2)[:, 0].tolist() == expected


def test_refused() -> None:
    for fill in ("last", "own"):
        with pytest.raises(ConfigError, match=r"owners=True"):
            KEPT.unreduce(fill)
    with pytest.raises(ConfigError, match="fill"):
        KEPT.unreduce("mean")
    with pytest.raises(InputError, match="width"):
        replace(OWNED, tokens=torch.zeros(2, 4, 3)).unreduce()


@given(st.permutations(range(6)), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_sorting_changes_no_map(order: list[int], n: int) -> None:
    index = torch.tensor([order[:n]])
    kept = tr.KeptTokens(
        tokens=torch.randn(1, n, 2), index=index, size=torch.ones(1, n), alive=index >= 0,
        prefix=torch.zeros(1, 0, 2), grid=(3, 2),
    )  # fmt: skip
    found = kept.sorted()
    assert found.index[0].tolist() == sorted(order[:n])
    assert torch.equal(found.dense("zero"), kept.dense("zero"))


FORMS: dict[str, dict[str, Any]] = {
    "cls": {},
    "registers": {"reg_tokens": 2},
    "no prefix": {"class_token": False, "global_pool": "avg"},
}


@pytest.mark.parametrize("form", FORMS)
def test_of_a_model(form: str) -> None:
    reduced = tr.wrap(_model(**FORMS[form]), tr.strategy("tome", r=3))
    p = reduced.info.num_prefix
    _, trace = reduced.run_with_trace(_images())
    kept = reduced.kept_tokens(_images())
    expected = reduced.forward_features(_images())
    torch.testing.assert_close(torch.cat((kept.prefix, kept.tokens), dim=1), expected)
    assert kept.prefix.shape == (2, p, 32)
    assert torch.equal(kept.index, trace.index)
    # Merging conserves sizes, also of the patches in each token.
    assert kept.size.sum(dim=1).tolist() == [12, 12]
    assert bool(kept.alive.all())
    assert kept.grid == (4, 3)
    assert kept.owner is kept.left is None
    for layer in (1, -2):
        middle = reduced.kept_tokens(_images(), layer=layer, norm=False)
        torch.testing.assert_close(middle.tokens, trace.features[1][:, p:])
        assert torch.equal(middle.index, trace.index_per_layer[1])
    with pytest.raises(ConfigError, match="blocks 0 to 2"):
        reduced.kept_tokens(_images(), layer=3)


def test_sizes_are_one_where_nobody_counts() -> None:
    kept = tr.wrap(_model(), tr.strategy("topk", layers=(1,), keep_rate=0.5)).kept_tokens(_images())
    assert torch.equal(kept.size, torch.ones(2, 6))


def test_a_fused_token() -> None:
    reduced = tr.wrap(_model(), tr.strategy("evit", layers=(1,), keep_rate=0.5))
    kept = reduced.kept_tokens(_images(), owners=True)
    assert kept.index[:, -1].tolist() == [-1, -1]
    assert kept.owner is not None
    # It has all patches that went.
    assert (kept.owner == 6).sum(dim=1).tolist() == [6, 6]
    full = kept.unreduce()
    for image in range(2):
        for patch, owner in enumerate(kept.owner[image].tolist()):
            assert torch.equal(full[image, patch], kept.tokens[image, owner])
    assert torch.equal(kept.sorted().index[:, -1], torch.tensor([-1, -1]))


def test_forward_features_unreduced() -> None:
    model = _model(reg_tokens=1)
    reduced = tr.wrap(model, tr.strategy("gtp", P=2, M=3))
    full = reduced.forward_features(_images(), unreduce=True)
    assert full.shape == (2, 2 + 12, 32)
    _, trace = reduced.run_with_trace(_images())
    norm = reduced.backbone.norm
    final = norm(trace.features[-1])
    torch.testing.assert_close(full[:, 2:], trace.unreduce(final, norm=norm))
    torch.testing.assert_close(full[:, :2], final[:, :2])
    for fill in ("nearest", "zero"):
        found = reduced.forward_features(_images(), unreduce=True, fill=fill)
        torch.testing.assert_close(found[:, 2:], trace.unreduce(final, fill))
    nothing = tr.wrap(model, tr.strategy("gtp", P=0)).forward_features(_images(), unreduce=True)
    torch.testing.assert_close(nothing, model.forward_features(_images()))
    with pytest.raises(ConfigError, match="fill"):
        reduced.forward_features(_images(), unreduce=True, fill="mean")


class Tower(nn.Module):
    """What a vision-language model has: a tower, and a projector over what it keeps."""

    def __init__(self, tower: tr.ReducedViT) -> None:
        super().__init__()
        self.tower, self.project = tower, nn.Linear(32, 8)

    def forward(self, images: Tensor) -> tr.KeptTokens:
        kept: tr.KeptTokens = self.tower.kept_tokens(images, layer=-2, norm=False).sorted()
        return replace(kept, tokens=self.project(kept.tokens))


def test_export_gives_the_whole_object_back() -> None:
    tower = Tower(tr.wrap(_model(), tr.strategy("tome", r=2))).eval()
    with torch.no_grad():
        batch = torch.export.Dim("batch", min=1, max=16)
        program = torch.export.export(
            tower, (_images(),), dynamic_shapes={"images": {0: batch}}, strict=False
        )
        for size in (1, 3):
            found, expected = program.module()(_images(size)), tower(_images(size))
            assert isinstance(found, tr.KeptTokens)
            torch.testing.assert_close(found.tokens, expected.tokens)
            assert torch.equal(found.index, expected.index)
            torch.testing.assert_close(found.dense(), expected.dense())
