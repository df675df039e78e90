from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tokenred as tr
from tokenred.attention import ScoreMod
from tokenred.core.errors import ConfigError, UntrainedPartWarning
from tokenred.core.state import TokenState
from tokenred.models import load_model
from tokenred.strategies.score_mods import TopKeys
from tokenred.strategies.strategy import recipes
from tokenred.training import finetune
from tokenred.training.checks import check_mask_is_read


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_can_be_trained(name: str) -> None:
    check_mask_is_read(tr.strategy(name))


def test_a_mask_that_nothing_reads_is_refused_before_any_work(tmp_path: Path) -> None:
    bare = tr.strategy("dynamicvit").replace(score_mods=(TopKeys(0.5),))
    with (
        pytest.warns(UntrainedPartWarning),
        pytest.raises(ConfigError, match=r"TopKeys.*PolicyMask"),
    ):
        finetune(load_model("digits"), bare, "digits", output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_edit_of_ones_own_will_do() -> None:
    class Hides(ScoreMod):
        @property
        def in_training_only(self) -> bool:
            return True

        def __call__(self, logits: torch.Tensor, state: TokenState) -> torch.Tensor:
            return logits.masked_fill(state.memory["mask"][:, None, None] == 0, -torch.inf)

    check_mask_is_read(tr.strategy("dynamicvit").replace(score_mods=(Hides(),)))
