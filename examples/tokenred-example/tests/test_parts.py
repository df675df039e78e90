"""The promises of the parts, and an example worked out by hand for each."""

from __future__ import annotations

import pytest
import torch
from tokenred_example import Spread, Window

import tokenred as tr
from tokenred.testing import check_fuser, check_graph, check_scorer


def test_promises() -> None:
    check_scorer("Contrast")
    check_graph("window")
    check_fuser("spread")


def test_contrast() -> None:
    x = torch.tensor([[[1.0], [1.0], [4.0]]])
    state = tr.TokenState(x, torch.arange(3)[None], 0, (1, 3))
    score = tr.strategy("contrast").scorer(state, tr.AttentionStats())
    assert score.tolist() == [[1.0, 1.0, 2.0]]


def test_window() -> None:
    graph = Window()(torch.zeros(1, 6, 2), (2, 3))
    assert graph.degree().tolist() == [[3.0, 5.0, 3.0, 3.0, 5.0, 3.0]]
    with pytest.raises(tr.errors.ConfigError, match="radius must be at least 1"):
        Window(0)


def test_spread() -> None:
    x = torch.tensor([[[1.0], [2.0], [4.0]]])
    state = tr.TokenState(x, torch.arange(3)[None], 0, (1, 3), graph=Window()(x, (1, 3)))
    selection = tr.Selection(torch.tensor([[0, 2]]), torch.tensor([[1]]))
    after = Spread(alpha=0.5)(state, selection, state.graph, tr.AttentionStats())
    assert after.image.flatten().tolist() == [1.5, 4.5]


def test_recipe() -> None:
    model = tr.models.load_model("digits")
    fast = tr.wrap(model, tr.strategy("contrast", keep_rate=0.5))
    assert tr.gmacs(fast) < tr.gmacs(model)
    assert fast(torch.randn(2, 3, 32, 32)).shape == (2, 10)
