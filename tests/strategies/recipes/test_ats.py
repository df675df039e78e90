"""ATS as a whole: a padded batch is its images, costs by image, refusals."""

from typing import Any

import pytest
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tests.strategies.recipes.checks import SMALL, check_a_batch_is_its_images, images, wrapped
from tokenred.core.errors import ConfigError

VARIANTS: dict[str, dict[str, Any]] = {
    "at most": {"max_tokens": 6},
    "in steps": {"max_tokens": (9, 5), "layers": (0, 2)},
    "proportional": {"proportional_attention": True},
    "fewer keys": {"score_mods": ("TopKeys",)},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_its_images(variant: str) -> None:
    check_a_batch_is_its_images(tr.strategy("ats", **VARIANTS[variant]))


def test_the_closed_form_is_an_upper_bound() -> None:
    from tokenred.analysis.measure.image_costs import adaptive_cost

    reduced = wrapped("ats")
    assert tr.gmacs(reduced) == tr.gmacs(reduced.base)
    assert adaptive_cost(reduced, images()).gmacs.max() < tr.gmacs(reduced)


def test_refused() -> None:
    bare = VisionTransformer(**SMALL, class_token=False, global_pool="avg")
    with pytest.raises(ConfigError, match="attention of a CLS token"):
        tr.wrap(bare, "ats")
    with pytest.raises(ConfigError, match="needs the same number for all"):
        tr.wrap(VisionTransformer(**SMALL), tr.strategy("ats", fuser="propagate"))
    with pytest.raises(ConfigError, match=r"theta=0\.7 would count the padding"):
        tr.wrap(VisionTransformer(**SMALL), tr.strategy("ats", theta=0.7))
    # A head over all tokens returns the padding; its user tells it by the sizes in the trace.
    assert tr.wrap(VisionTransformer(**SMALL | {"num_classes": 0}, global_pool=""), "ats")
