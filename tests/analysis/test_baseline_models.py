"""Baselines cost no more than they may, and as much as they can."""

from __future__ import annotations

import json

import pytest
import torch
from timm.models import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.analysis import LowerResolution, baselines, evaluate, parse_spec
from tokenred.analysis.baseline_models import KINDS, baselines_beside
from tokenred.analysis.lower_resolution import smaller_sizes
from tokenred.core.errors import BackboneError, ConfigError, PartError, ScheduleError


@pytest.mark.parametrize("share", [0.2, 0.4, 0.65, 0.85, 0.99])
def test_within_the_budget_and_the_largest_that_is(digits: nn.Module, share: float) -> None:
    found = baselines(digits, share)
    budget = share * tr.gmacs(digits)
    assert tuple(found) == KINDS
    images = torch.randn(2, 3, 32, 32)
    for model in found.values():
        assert tr.gmacs(model) <= budget
        assert model(images).shape == (2, 10)
    low, shallow, uniform = found.values()
    sizes = smaller_sizes(digits)
    assert isinstance(low, LowerResolution)
    larger = sizes[sizes.index(low.own_size) + 1 :][:1]
    assert all(tr.gmacs(LowerResolution(digits, size)) > budget for size in larger)
    # One block or one token more would be too many.
    block = tr.wrap(digits, "topk").cost().layers[0].macs / 1e9
    assert tr.gmacs(shallow) + block > budget
    kept = uniform.cost().layers[0].tokens_out
    more = tr.wrap(digits, tr.strategy("uniform", keep_rate=(kept + 1) / 64))
    assert kept == 64 or tr.gmacs(more) > budget


def test_the_shallow_model_is_its_first_blocks(digits: nn.Module) -> None:
    images = torch.randn(3, 3, 32, 32)
    shallow = baselines(digits, 0.5, kinds=["depth"])["depth"]
    depth = len(shallow.blocks)
    assert 1 <= depth < len(digits.blocks) == 8
    with torch.no_grad():
        x = digits.norm_pre(digits._pos_embed(digits.patch_embed(images)))
        expected = digits.forward_head(digits.norm(digits.blocks[:depth](x)))
        torch.testing.assert_close(shallow(images), expected)
    theirs = dict(digits.named_parameters())
    assert all(theirs[name] is own for name, own in shallow.named_parameters())


def test_of_a_reduced_model_its_base_counts(digits: nn.Module) -> None:
    reduced = baselines(tr.wrap(digits, "tome"), 0.5, kinds=["uniform"])["uniform"]
    plain = baselines(digits, 0.5, kinds=["uniform"])["uniform"]
    assert tr.gmacs(reduced) == tr.gmacs(plain)
    assert reduced.base is digits


def test_they_are_evaluated_as_they_are(digits: nn.Module) -> None:
    for kind, model in baselines(digits, 0.65).items():
        assert evaluate(model, "digits", limit=60, progress=False).top1 > 80, kind


def test_a_smaller_model_by_itself_or_by_name(
    digits: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(**options: object) -> VisionTransformer:
        shape = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
        made = VisionTransformer(**(shape | {"num_classes": 10} | options))
        made.pretrained_cfg = {}
        return made.eval()

    tiny = small()
    assert baselines(digits, 0.5, kinds=(), smaller=tiny) == {"smaller": tiny}
    monkeypatch.setattr("tokenred.models.load_model", lambda name: small())
    assert list(baselines(digits, 0.5, smaller="some_tiny_model")) == [*KINDS, "smaller"]
    with pytest.raises(ConfigError, match="expected a smaller model of at most"):
        baselines(digits, 0.5, smaller=digits)
    with pytest.raises(ConfigError, match=r"classes: 10, .* got 7"):
        baselines(digits, 0.5, smaller=small(num_classes=7))
    with pytest.raises(ConfigError, match=r"images of \(3, 32, 32\), .* got \(3, 16, 16\)"):
        baselines(digits, 0.5, smaller=small(img_size=16))
    other = small()
    other.pretrained_cfg = {"mean": (0.9, 0.9, 0.9)}
    with pytest.raises(ConfigError, match="pixels of mean"):
        baselines(digits, 0.5, smaller=other)
    with pytest.raises(PartError, match="smaller model"):
        baselines(digits, 0.5, smaller=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1, True, float("nan")])
def test_refused_shares(digits: nn.Module, share: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        baselines(digits, share)


def test_refused(digits: nn.Module) -> None:
    for kinds in (("resolution", "width"), "depth"):
        with pytest.raises(ConfigError, match="expected kinds"):
            baselines(digits, 0.5, kinds=kinds)
    for kind in KINDS:
        with pytest.raises(ScheduleError):
            baselines(digits, 0.001, kinds=(kind,))
    with pytest.raises(BackboneError):
        baselines(nn.Linear(2, 2), 0.5)


def test_beside_strategies_at_what_each_costs(digits: nn.Module) -> None:
    specs = [parse_spec(text) for text in ("tome@0.6", "evit@0.6", "gtp:P=4", "gtp:P=0")]
    reduced = {s.label: tr.wrap(digits, s.resolve(tr.gmacs(digits))) for s in specs}
    found, notes = baselines_beside(digits, specs, reduced, True)
    own = tr.gmacs(reduced["gtp:P=4"]) / tr.gmacs(digits)
    texts = ("0.6", f"{own:.3g}")
    # The strategy that removes nothing has no budget to match.
    assert [b.label for b in found] == [f"{kind}@{text}" for kind in KINDS for text in texts]
    assert notes == ()
    for baseline in found:
        limit = 0.6 if baseline.label.endswith("@0.6") else own
        assert baseline.reduced.cost().gmacs <= limit * tr.gmacs(digits)
    low, shallow = found[0], found[2]
    assert json.loads(low.config) == {"baseline": "resolution", "image_size": [24, 24]}
    assert json.loads(shallow.config)["blocks"] == len(shallow.model.blocks)


def test_beside_strategies_at_shares_of_the_users(digits: nn.Module) -> None:
    found, notes = baselines_beside(digits, [], {}, [0.5, 0.05])
    assert [b.label for b in found] == ["resolution@0.5", "resolution@0.05", "depth@0.5",
                                        "uniform@0.5", "uniform@0.05"]  # fmt: skip
    assert [note.split(":")[0] for note in notes] == ["No baseline depth@0.05"]
    assert baselines_beside(digits, [], {}, False) == ([], ())
    with pytest.raises(ConfigError, match="between 0 and 1"):
        baselines_beside(digits, [], {}, [0.5, 2])
    with pytest.raises(ConfigError, match="a list of shares"):
        baselines_beside(digits, [], {}, 0.5)  # type: ignore[arg-type]


def test_the_users_own_labels(digits: nn.Module) -> None:
    mine = tr.wrap(digits, "topk")
    found, _ = baselines_beside(digits, [], {"uniform@0.5": mine}, [0.5])
    assert [b.kind for b in found] == ["resolution", "depth"]
    with pytest.raises(ConfigError, match=r"'depth@0\.5', which is a baseline's"):
        baselines_beside(digits, [], {"depth@0.5": mine}, [0.5])
