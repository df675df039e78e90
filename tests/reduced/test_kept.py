"""The tokens a reduced model keeps, and the way from them back to full maps."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.forms import images_for, vit
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.state import Selection, TokenState
from tokenred.reduced.kept import FILLS

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")

# Two images on a grid of 2×3 with four tokens each; of the second, one fused token (−1) and one
# place of padding.
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


def test_place_and_sorted() -> None:
    assert KEPT.place.tolist() == [
        [[1, 2], [0, 0], [0, 2], [1, 1]],
        [[-1, -1], [1, 0], [-1, -1], [0, 1]],
    ]
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
    assert kept.unreduce(fill)[..., 0].tolist() == expected
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
def test_of_any_places(order: list[int], n: int) -> None:
    index = torch.tensor([order[:n]])
    kept = tr.KeptTokens(
        tokens=torch.randn(1, n, 2), index=index, size=torch.ones(1, n), alive=index >= 0,
        prefix=torch.zeros(1, 0, 2), grid=(3, 2),
    )  # fmt: skip
    found = kept.sorted()
    assert found.index[0].tolist() == sorted(order[:n])
    assert torch.equal(found.dense("zero"), kept.dense("zero"))
    near = kept.unreduce("nearest")[0]

    def distance(one: int, other: int) -> int:
        return (one // 2 - other // 2) ** 2 + (one % 2 - other % 2) ** 2

    for patch in range(6):
        least = min(distance(patch, at) for at in order[:n])
        nearest = [i for i, at in enumerate(order[:n]) if distance(patch, at) == least]
        assert any(torch.equal(near[patch], kept.tokens[0, i]) for i in nearest)


# ---------------------------------------------------------------- of a model


@pytest.mark.parametrize(
    "form", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}], ids=str
)
def test_of_a_model(form: dict[str, object]) -> None:
    model = vit(**form)
    reduced, images = tr.wrap(model, tr.strategy("tome", r=3)), images_for(model)
    p = reduced.info.num_prefix
    _, trace = reduced.run_with_trace(images)
    kept = reduced.kept_tokens(images)
    expected = reduced.forward_features(images)
    torch.testing.assert_close(torch.cat((kept.prefix, kept.tokens), dim=1), expected)
    assert kept.prefix.shape == (2, p, 32)
    assert torch.equal(kept.index, trace.index)
    # Merging conserves sizes, also of the patches in each token.
    assert kept.size.sum(dim=1).tolist() == [12, 12]
    assert bool(kept.alive.all())
    assert kept.grid == (4, 3)
    assert kept.owner is kept.left is None
    for layer in (1, -2):
        middle = reduced.kept_tokens(images, layer=layer, norm=False)
        torch.testing.assert_close(middle.tokens, trace.features[1][:, p:])
        assert torch.equal(middle.index, trace.index_per_layer[1])
    with pytest.raises(ConfigError, match="blocks 0 to 2"):
        reduced.kept_tokens(images, layer=3)
    plain = reduced.with_strategy(tr.Strategy("MixedAttn", schedule=2)).kept_tokens(images)
    assert torch.equal(plain.size, torch.ones(2, 6))  # where nobody counts


def test_a_fused_token() -> None:
    model = vit()
    reduced = tr.wrap(model, tr.strategy("evit", layers=(1,), keep_rate=0.5))
    kept = reduced.kept_tokens(images_for(model), owners=True)
    assert kept.index[:, -1].tolist() == [-1, -1]
    assert kept.owner is not None
    # It has all patches that went.
    assert (kept.owner == 6).sum(dim=1).tolist() == [6, 6]
    assert torch.equal(kept.sorted().index[:, -1], torch.tensor([-1, -1]))


def test_forward_features_unreduced() -> None:
    model = vit(reg_tokens=1)
    reduced, images = tr.wrap(model, tr.strategy("gtp", P=2, M=3)), images_for(model)
    _, trace = reduced.run_with_trace(images)
    norm = reduced.backbone.norm
    final = norm(trace.features[-1])
    for fill, last in (("last", norm), ("nearest", None), ("zero", None)):
        full = reduced.forward_features(images, unreduce=True, fill=fill)
        assert full.shape == (2, 2 + 12, 32)
        torch.testing.assert_close(full[:, 2:], trace.unreduce(final, fill, norm=last))
        torch.testing.assert_close(full[:, :2], final[:, :2])
    nothing = tr.wrap(model, tr.strategy("gtp", P=0)).forward_features(images, unreduce=True)
    torch.testing.assert_close(nothing, model.forward_features(images))
    with pytest.raises(ConfigError, match="fill"):
        reduced.forward_features(images, unreduce=True, fill="mean")


# ---------------------------------------------------------------- owners, recorded block by block

METHODS = {name: tr.strategy(name) for name in tr.list_strategies()} | {
    "prune": tr.Strategy("MixedAttn", schedule=2),
    "sparse": tr.strategy("gtp", P=2, M=3, theta=0.6),
    "before": tr.Strategy("Random", schedule=2, where="before_block"),
    "evit, then more": tr.strategy("evit", layers=(0, 1, 2), keep_rate=0.6),
}


def _unlike_images(model: nn.Module) -> Tensor:
    """Images of which ATS keeps different numbers of tokens."""
    return images_for(model, 8) * torch.logspace(-2, 1, 8)[:, None, None, None]


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_owners_are_those_of_the_trace(method: str) -> None:
    model = vit(reg_tokens=1, depth=4)
    reduced, images = tr.wrap(model, METHODS[method]), _unlike_images(model)
    _, trace = reduced.run_with_trace(images)
    for layer in (1, -1):
        cut = trace.cut(layer % 4)
        kept = reduced.kept_tokens(images, layer=layer, norm=False, owners=True)
        assert kept.owner is not None
        assert torch.equal(kept.owner, cut.owners())
        assert torch.equal(kept.index, cut.index)
        assert torch.equal(kept.alive.sum(dim=1), cut.alive_per_layer[-1])
        for fill in FILLS:
            expected = cut.unreduce(cut.features[-1], fill)
            torch.testing.assert_close(kept.unreduce(fill), expected)


class HandMade(tr.Fuser):
    """Describes no transport: the dropped tokens go to the first kept one."""

    def __call__(
        self, state: TokenState, selection: Selection, graph: object, attention: object
    ) -> TokenState:
        p, drop = state.num_prefix, selection.drop[..., None].expand(-1, -1, state.x.shape[2])
        keep = selection.keep[..., None].expand(-1, -1, state.x.shape[2])
        image = state.image.gather(1, keep)
        first = image[:, :1] + state.image.gather(1, drop).sum(dim=1, keepdim=True)
        x = torch.cat((state.x[:, :p], first, image[:, 1:]), dim=1)
        return replace(state, x=x, index=state.index.gather(1, selection.keep), size=None)


def test_a_fuser_that_describes_nothing() -> None:
    strategy = tr.Strategy("DiagAttn", fuser=HandMade(), schedule=2, proportional_attention=False)
    model = vit(depth=4)
    kept = tr.wrap(model, strategy).kept_tokens(images_for(model), owners=True)
    assert kept.owner is not None
    # The lowest kept place has its own patch and all eight that went, of four blocks.
    assert (kept.owner == 0).sum(dim=1).tolist() == [9, 9]


def test_padding_owns_nothing() -> None:
    model = vit(depth=4, global_pool="avg")
    kept = tr.wrap(model, "ats").kept_tokens(_unlike_images(model), owners=True)
    assert not bool(kept.alive.all())
    assert bool((kept.index[~kept.alive] == -1).all())
    assert bool((kept.size[~kept.alive] == 0).all())
    assert kept.owner is not None
    owned = nn.functional.one_hot(kept.owner + 1, kept.index.shape[1] + 1)[..., 1:].sum(dim=1)
    assert bool((owned[kept.alive] > 0).all())
    assert not bool(owned[~kept.alive].any())
    last = kept.sorted()
    assert bool((last.alive.long().diff(dim=1) <= 0).all())


def test_of_a_training_form() -> None:
    model = vit(depth=4)
    kept = tr.wrap(model, "dynamicvit").train().kept_tokens(images_for(model), owners=True)
    assert kept.index.shape == (2, 12)
    assert not bool(kept.alive.all())
    # All tokens are still there, each with its own patch.
    torch.testing.assert_close(kept.unreduce(), kept.tokens)


@pytest.mark.parametrize("method", ["prune", "tome", "evit", "idlevit", "dynamicvit"])
def test_gradients_with_and_without_checkpoints(method: str) -> None:
    found = []
    for checkpointed in (False, True):
        model = vit(depth=4).train()
        torch.manual_seed(0)
        reduced = tr.wrap(model, METHODS[method])
        reduced.set_grad_checkpointing(checkpointed)
        torch.manual_seed(3)
        maps = reduced.forward_intermediates(images_for(model), (1, 3), intermediates_only=True)
        sum(m.square().mean() for m in maps).backward()
        grads = {n: p.grad for n, p in reduced.named_parameters() if p.grad is not None}
        assert all(grad.isfinite().all() for grad in grads.values())
        found.append(grads)
    assert "blocks.3.mlp.fc2.weight" in found[0]
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, msg=name)


def test_patch_dropout() -> None:
    model = vit(patch_drop_rate=0.5)
    reduced = tr.wrap(model, tr.strategy("gtp", P=1, M=3)).train()
    kept = reduced.kept_tokens(images_for(model), norm=False, owners=True)
    # What never entered has no feature, and nobody owns it.
    assert (kept.unreduce().abs().sum(dim=-1) == 0).sum(dim=1).tolist() == [6, 6]
    assert bool((kept.unreduce("nearest").abs().sum(dim=-1) > 0).all())


@pytest.mark.slow
@torch.no_grad()
def test_one_graph() -> None:
    model = vit()
    reduced = tr.wrap(model, METHODS["gtp"])
    torch._dynamo.reset()

    def maps(images: Tensor) -> tuple[Tensor, ...]:
        kept = reduced.kept_tokens(images, owners=True)
        (found,) = reduced.forward_intermediates(images, [0], intermediates_only=True)
        return kept.tokens, kept.index, kept.dense("last"), kept.dense("nearest"), found

    compiled = torch.compile(maps, fullgraph=True, backend="eager")
    for one, other in zip(compiled(images_for(model)), maps(images_for(model)), strict=True):
        torch.testing.assert_close(one, other)


class Tower(nn.Module):
    """What a vision-language model has: a tower, and a projector over what it keeps."""

    def __init__(self, tower: tr.ReducedViT) -> None:
        super().__init__()
        self.tower, self.project = tower, nn.Linear(32, 8)

    def forward(self, images: Tensor) -> tr.KeptTokens:
        kept: tr.KeptTokens = self.tower.kept_tokens(images, layer=-2, norm=False).sorted()
        return replace(kept, tokens=self.project(kept.tokens))


def test_export_gives_the_whole_object_back() -> None:
    model = vit(depth=2)
    tower = Tower(tr.wrap(model, tr.strategy("tome", r=2))).eval()
    with torch.no_grad():
        batch = {"images": {0: torch.export.Dim("batch", min=1, max=16)}}
        program = torch.export.export(
            tower, (images_for(model),), dynamic_shapes=batch, strict=False
        )
        for size in (1, 3):
            images = images_for(model, size)
            found, expected = program.module()(images), tower(images)
            assert isinstance(found, tr.KeptTokens)
            torch.testing.assert_close(found.tokens, expected.tokens)
            assert torch.equal(found.index, expected.index)
            torch.testing.assert_close(found.dense(), expected.dense())
