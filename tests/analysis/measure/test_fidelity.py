"""How close features and maps stay to those of the dense model."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import tokenred as tr
from tokenred.analysis import feature_fidelity, map_fidelity
from tokenred.core.errors import InputError


def test_maps_by_hand() -> None:
    wanted = torch.tensor([[[0.0, 0.0], [1.0, 3.0]]] * 3)
    found = torch.stack((wanted[0] * 2 + 1, -wanted[0], torch.ones(2, 2)))
    got = map_fidelity(found, wanted)
    # Scale and offset change the error and nothing else; a constant map follows nothing.
    assert got["correlation"][:2].tolist() == pytest.approx([1, -1])
    assert math.isnan(got["correlation"][2])
    assert got["error"].tolist() == pytest.approx([2, 2, 1.25 - 0.25])
    # Above its mean of 1 lies one place; of the negative, three others.
    assert got["iou"].tolist() == pytest.approx([1, 0, 0])


@pytest.mark.parametrize("shapes", [((2, 4), (2, 5)), ((2,), (2,)), ((2, 1), (2, 1))])
def test_maps_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InputError, match="of one shape"):
        map_fidelity(*map(torch.zeros, shapes))


def test_features_of_the_same_model_are_the_same_and_fewer_tokens_less_so() -> None:
    model, images = tr.models.load_model("digits"), torch.rand(3, 3, 32, 32)
    dense = tr.wrap(model, tr.Strategy.dense()).kept_tokens(images)
    near, far = (
        tr.wrap(model, f"tome@{share}").kept_tokens(images, owners=True) for share in (0.95, 0.6)
    )
    same, less, least = (feature_fidelity(kept, dense) for kept in (dense, near, far))
    assert list(same) == ["cls", "mean", "patches"]
    for name, values in same.items():
        assert torch.allclose(values, torch.ones(3))
        assert values.mean() > less[name].mean() > least[name].mean()


def test_the_mean_counts_each_token_as_often_as_it_stands_for_patches() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    kept = tr.wrap(tr.models.load_model("digits"), "tome").kept_tokens(torch.rand(1, 3, 32, 32))
    kept = replace(
        kept, tokens=tokens, size=torch.tensor([[3.0, 1.0, 0.0]]), index=torch.tensor([[0, 1, -1]]),
        prefix=tokens[:, :0], grid=(1, 2),
    )  # fmt: skip
    plain = replace(kept, size=torch.tensor([[1.0, 1.0, 0.0]]))
    got = feature_fidelity(kept, plain)
    assert "cls" not in got
    assert float(got["mean"]) == pytest.approx(4 / math.sqrt(10 * 2))
    with pytest.raises(InputError, match="the same images"):
        feature_fidelity(kept, replace(plain, grid=(2, 1)))
