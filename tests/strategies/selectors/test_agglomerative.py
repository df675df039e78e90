"""ATC's clusters against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from tokenred.strategies.selectors.matching.agglomerative import clustered


@pytest.mark.parametrize("joins", [0, 1, 5, 11])
@pytest.mark.parametrize("kind", ["single", "complete", "average"])
def test_clusters_are_those_of_scipy(kind: str, joins: int) -> None:
    points = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(1)).double()
    distance = torch.cdist(points, points)
    found = clustered(distance, joins, kind)
    for one, image in zip(found, distance, strict=True):
        tree = linkage(squareform(image.numpy(), checks=False), kind)
        labels = fcluster(tree, 12 - joins, "maxclust")
        lowest = [int(np.flatnonzero(labels == label)[0]) for label in labels]
        assert one.tolist() == lowest


def test_equal_distances_join_the_lowest_places_first() -> None:
    distance = torch.ones(1, 4, 4)
    assert clustered(distance, 1, "average").tolist() == [[0, 0, 2, 3]]
    assert clustered(distance, 2, "single").tolist() == [[0, 0, 0, 3]]


def test_distances_that_are_rounded_apart_join_the_same_tokens() -> None:
    distance = torch.cdist(*[torch.tensor([[[0.0], [5.0], [1.0], [9.0]]])] * 2).double()
    distance[:, 0, 2] += 1e-12
    assert clustered(distance, 1, "average").tolist() == [[0, 1, 0, 3]]
