"""Mean and single costs of images that keep different numbers of tokens."""

import numpy as np
import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis import adaptive_cost
from tokenred.analysis.measure.image_costs import is_adaptive
from tokenred.core.errors import InputError, PartError


def test_images_and_data(digits: nn.Module) -> None:
    reduced = tr.wrap(digits, "ats").train()
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = adaptive_cost(reduced, images, batch_size=2)
    assert reduced.training
    reduced.eval()
    assert found.counts.shape == (5, 9)
    alone = [adaptive_cost(reduced, image[None]) for image in images]
    np.testing.assert_array_equal(found.counts, np.concatenate([a.counts for a in alone]))
    np.testing.assert_allclose(found.gmacs, [a.mean_gmacs for a in alone])
    assert found.mean_gmacs == pytest.approx(found.gmacs.mean())
    # The lengths of 64 values of 96 channels are the least of it.
    assert found.mean_overhead_gmacs > 64 * 96 / 1e9
    assert "5 images" in repr(found)
    from_data = adaptive_cost(reduced, "digits", limit=6)
    assert len(from_data.gmacs) == 6
    assert len(set(from_data.gmacs)) > 1
    assert from_data.mean_counts[:3].tolist() == [64, 64, 64]


def test_of_a_static_method_all_images_cost_the_same(digits: nn.Module) -> None:
    reduced = tr.wrap(digits, "evit")
    found = adaptive_cost(reduced, torch.randn(3, 3, 32, 32))
    np.testing.assert_allclose(found.gmacs, tr.gmacs(reduced))
    np.testing.assert_allclose(found.overhead_gmacs, reduced.cost().overhead_gmacs)
    assert not is_adaptive(reduced)
    assert is_adaptive(tr.wrap(digits, "ats"))


def test_refused(digits: nn.Module) -> None:
    with pytest.raises(PartError, match=r"a model from tokenred\.wrap"):
        adaptive_cost(digits, torch.randn(1, 3, 32, 32))
    with pytest.raises(InputError, match="at least one image"):
        adaptive_cost(tr.wrap(digits, "ats"), torch.zeros(0, 3, 32, 32))
