"""DynamicViT as a whole: the training mask is the inference gather, costs, life of the weights."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import tokenred as tr
from tests.strategies.recipes.checks import FORMS, images, in_training, model
from tokenred.core.errors import UntrainedPartWarning
from tokenred.models.rebuild import weightless
from tokenred.strategies.score_mods import PolicyMask
from tokenred.strategies.selectors import Predictor

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


def wrapped(form: str = "cls", **options: Any) -> tr.ReducedViT:
    reduced = tr.wrap(model(form), tr.strategy("dynamicvit", **options))
    for p in reduced.parts.parameters():
        nn.init.normal_(p, std=0.4)
    return reduced.eval()


# ---------------------------------------------------------------- mask and gather


def decided(form: str) -> tuple[tr.ReducedViT, Tensor]:
    """A model whose networks are sure, in training, of what inference keeps of an image."""
    reduced, batch = wrapped(form), images(form, b=1)
    stages, odds = reduced.parts["selector"].stages, []
    hooks = [s.register_forward_hook(lambda _, __, out: odds.append(out)) for s in stages]
    reduced(batch)
    for stage, hook, logits, layer in zip(
        stages, hooks, odds, reduced.cost().layers[1:], strict=True
    ):
        hook.remove()
        margin = (logits[0, :, 0] - logits[0, :, 1]).detach().sort(descending=True).values
        last = stage.decide[-1]
        last.bias.data[0] -= margin[layer.tokens_out - 1 : layer.tokens_out + 1].mean()
        # Far beyond what Gumbel noise could turn.
        last.weight.data *= 1e8
        last.bias.data *= 1e8
    return reduced, batch


def both_ways(reduced: tr.ReducedViT, batch: Tensor, epsilon: float) -> float:
    """How far the training form is from inference at the same decisions."""
    strategy = reduced.strategy.replace(score_mods=(PolicyMask(epsilon),))
    reduced = reduced.with_strategy(strategy).eval()
    gathered, trace = reduced.run_with_trace(batch)
    masked, aux = in_training(reduced).forward_train(batch)
    n = aux["index"].shape[1]
    assert torch.equal(aux["mask"][0, -n:].nonzero().flatten(), trace.index[0])
    left = [layer.tokens_out / aux["index"].shape[1] for layer in reduced.cost().layers[1:]]
    torch.testing.assert_close(aux["kept_share"], torch.tensor([left]).double())
    reduced.eval()
    return (masked - gathered).abs().max().item()


@pytest.mark.parametrize("form", FORMS)
def test_the_training_mask_is_the_inference_gather(form: str) -> None:
    reduced, batch = decided(form)
    assert both_ways(reduced, batch, 0.0) < 1e-10
    # The ε of the masked attention is all that leaks, and leaks in proportion.
    gap = both_ways(reduced, batch, 1e-6)
    assert 1e-9 < gap < 1e-5
    assert both_ways(reduced, batch, 1e-7) == pytest.approx(gap / 10, rel=0.05)


def test_what_training_hands_to_the_losses() -> None:
    reduced = wrapped()
    batch = images(b=3)
    torch.manual_seed(4)
    logits, aux = in_training(reduced).forward_train(batch)
    assert aux["mask"].shape == aux["features"].shape[:2] == (3, 17)
    assert aux["index"].shape == (3, 16)
    assert aux["kept_share"].shape == aux["target_share"].shape == (3, 3)
    torch.testing.assert_close(aux["mask"][:, 1:].mean(dim=1), aux["kept_share"][:, -1])
    counts = [layer.tokens_out for layer in reduced.cost().layers]
    assert counts == [16, 11, 7, 5]  # ⌊0.7ˢ·16⌋
    aim = torch.tensor([0.7, 0.49, 0.343]).double()  # and not the rounded counts
    torch.testing.assert_close(aux["target_share"], aim.expand(3, 3))
    # The same, with the same draw, of the ordinary forward.
    torch.manual_seed(4)
    torch.testing.assert_close(reduced(batch), logits)
    _, aux = reduced.eval().forward_train(batch)
    assert set(aux) == {"features", "index"}
    assert aux["features"].shape == (3, 6, 32)


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [("deit_small_patch16_224", 2.9), ("deit_base_patch16_224", 11.4), ("lvvit_s", 4.6)],
)
def test_the_published_gmacs(name: str, gmacs: float) -> None:
    import tokenred.models.lvvit

    assert tokenred.models.lvvit
    with weightless():
        model = timm.create_model(name).eval()
    cost = tr.wrap(model, "dynamicvit").cost()
    assert cost.gmacs == pytest.approx(gmacs, abs=0.16)
    quarter = len(cost.layers) // 4
    assert [x.tokens_out for x in cost.layers[::quarter]] == [196, 137, 96, 67]
    if name == "deit_small_patch16_224":
        assert cost.gmacs - cost.learned / 1e9 == pytest.approx(2.88, abs=0.005)
        assert cost.learned / 1e9 == pytest.approx(0.103, abs=0.001)
        half = tr.wrap(model, tr.strategy("dynamicvit", keep_rate=0.5))
        assert [x.tokens_out for x in half.cost().layers[::quarter]] == [196, 98, 49, 24]


def test_composition_and_layers() -> None:
    assert tr.strategy("dynamicvit") == tr.Strategy(
        "Predictor",
        schedule=tr.KeepRatio(0.7, rounding="floor", of="start"),
        where="before_block",
        score_mods=("PolicyMask",),
    )
    made = tr.strategy("dynamicvit", keep_rate=[0.5, 0.25], layers=[0, 2], temperature=0.5)
    assert made.scorer == Predictor((0, 2), 0.5)
    assert made.score_mods == (PolicyMask(),)
    reduced = tr.wrap(FORMS["cls"](), made)
    assert [x.tokens_out for x in reduced.cost().layers] == [8, 8, 4, 4]
    assert len(reduced.parts["selector"].stages) == 2
    dense = tr.wrap(FORMS["cls"]().eval(), tr.strategy("dynamicvit", keep_rate=1.0))
    batch = images(b=1).float()
    assert torch.equal(dense(batch), dense.base(batch))


# ---------------------------------------------------------------- the life of its weights


def test_another_keep_rate_has_the_same_networks() -> None:
    reduced = wrapped()
    state = torch.get_rng_state()
    other = reduced.with_strategy(tr.strategy("dynamicvit", keep_rate=0.4))
    assert torch.equal(torch.get_rng_state(), state)
    ours, theirs = reduced.parts["selector"], other.parts["selector"]
    assert ours is theirs
    assert other.cost().learned < reduced.cost().learned
    other.float()
    assert next(ours.parameters()).dtype == torch.float32
    # Another method's are its own, and one without any leaves these alone.
    with pytest.warns(UntrainedPartWarning, match="^selector of"):
        new = reduced.with_strategy(tr.strategy("dynamicvit", temperature=0.5))
    assert new.parts["selector"] is not ours
    assert "parts" not in reduced.with_strategy("topk")._modules
