"""Checkpoints of the programs of others, made up with their names."""

from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tokenred.models import load_released

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
THEIRS = {
    "parts.fuser.": "cluster_layers.", "parts.selector.stages.": "score_predictor.",
    "parts.selector.": "cluster_layers.", ".embed.": ".in_conv.", ".decide.": ".out_conv.",
}  # fmt: skip
LEARNED = ("sinkhorn", "patchmerger", "sit", "dpcknn", "dynamicvit")


def reduced(recipe: str, seed: int = 0) -> tr.ReducedViT:
    torch.manual_seed(seed)
    base = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=4, num_heads=2, num_classes=3
    )
    model = tr.wrap(base.eval(), recipe)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model


def named_as_theirs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        for ours, theirs in THEIRS.items():
            name = name.replace(ours, theirs)
        found[name] = value
    return found


@pytest.mark.parametrize("recipe", LEARNED)
def test_backbone_and_learned_parts_are_loaded(recipe: str, tmp_path: Path) -> None:
    trained, fresh = reduced(recipe, seed=1), reduced(recipe)
    state = named_as_theirs(trained.state_dict())
    assert not any(name.startswith("parts.") for name in state)
    torch.save({"model": state}, tmp_path / "best.pth")
    load_released(fresh, tmp_path / "best.pth")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(fresh(images), trained(images))


@pytest.mark.parametrize(
    ("saved", "into", "told"),
    [
        ("sit", "sinkhorn", "do not fit"),
        ("topk", "sit", "learned part in"),
        ("sit", "topk", "one learned part, got none"),
    ],
)
def test_another_method_is_refused_and_nothing_changes(
    saved: str, into: str, told: str, tmp_path: Path
) -> None:
    torch.save(named_as_theirs(reduced(saved).state_dict()), tmp_path / "best.pth")
    model = reduced(into, seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(tr.errors.CheckpointError, match=told):
        load_released(model, tmp_path / "best.pth")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
