"""What is saved comes back as it was, and nothing else is taken for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import tokenred as tr
from tests.backbones.forms import FAMILIES, images_for, vit
from tokenred.core.errors import CheckpointError, OutputExistsError, PartError, UnknownNameError
from tokenred.core.info import ModelInfo

ODD = {"class_token": False, "global_pool": "avg", "init_values": 0.1, "qkv_bias": False}
MODELS: dict[str, Callable[[], Any]] = {
    "plain": vit,
    "no CLS, half": lambda: vit(**ODD).half(),
    "timm": lambda: timm.create_model("test_vit", num_classes=3).eval(),
    **{name: lambda n=name: FAMILIES[n]().eval() for name in ("lvvit", "eva", "beit")},
}


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    reduced = tr.wrap(model, "idlevit" if name == "lvvit" else "gtp")
    path = tr.save(reduced, tmp_path / "m.safetensors")
    loaded = tr.load(path, model=MODELS[name]() if name in FAMILIES else None)
    assert loaded.strategy == reduced.strategy
    assert not loaded.training
    for name, value in reduced.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    images = images_for(model)
    torch.testing.assert_close(loaded(images), reduced(images), rtol=0, atol=0)


def test_learned_parts_are_kept(tmp_path: Path) -> None:
    @tr.register_scorer("SavedJudge", overwrite=True)
    class SavedJudge(tr.Scorer):
        def build(self, info: ModelInfo) -> torch.nn.Module:
            return Judge(info.width)

    with pytest.warns(tr.errors.UntrainedPartWarning):
        reduced = tr.wrap(vit(), tr.Strategy("SavedJudge", schedule=3))
    images = torch.randn(2, 3, 32, 24)
    loaded = tr.load(tr.save(reduced, tmp_path / "m.safetensors"))  # and nothing warns
    torch.testing.assert_close(loaded(images), reduced(images), rtol=0, atol=0)
    assert "parts.selector.scorer.weigh.weight" in loaded.state_dict()


class Judge(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = torch.nn.Linear(width, 1)

    def forward(self, state: tr.TokenState, attention: tr.AttentionStats) -> torch.Tensor:
        return self.weigh(state.image)[..., 0]


def test_existing_files_and_plain_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"mine")
    reduced = tr.wrap(vit(), "topk")
    with pytest.raises(OutputExistsError):
        tr.save(reduced, path)
    assert path.read_bytes() == b"mine"
    with pytest.raises(PartError, match=r"what tokenred\.wrap returned"):
        tr.save(vit(), path)  # type: ignore[arg-type]


def test_weights_of_other_types_are_refused(tmp_path: Path) -> None:
    reduced = tr.wrap(vit(), "topk")
    head: torch.nn.Linear = reduced.base.head  # type: ignore[assignment]
    head.weight.data = head.weight.data.to(torch.float8_e5m2)
    with pytest.raises(CheckpointError, match=r"expected weights in .*float8"):
        tr.save(reduced, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"x": torch.zeros(1)}, str(path))
    with pytest.raises(CheckpointError, match=r"written by tokenred\.save"):
        tr.load(path)


def test_an_odd_base_is_loaded_into_one_that_is_given(tmp_path: Path) -> None:
    def odd() -> torch.nn.Module:
        model = vit()
        model.norm = torch.nn.LayerNorm(32, eps=1e-3)  # no argument of timm's makes this
        return model.eval()  # type: ignore[no-any-return]

    reduced = tr.wrap(odd(), "evit")
    path = tr.save(reduced, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="model="):
        tr.load(path)
    images = torch.randn(2, 3, 32, 24)
    loaded = tr.load(path, model=odd())
    torch.testing.assert_close(loaded(images), reduced(images), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="do not fit"):
        tr.load(path, model=vit(reg_tokens=2))


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    @tr.register_scorer("PassingThrough")
    class PassingThrough(tr.scorers.Random):
        pass

    path = tr.save(
        tr.wrap(vit(), tr.Strategy("PassingThrough", schedule=1)), tmp_path / "m.safetensors"
    )
    from tokenred.strategies.base import scorers

    del scorers._entries["passingthrough"]
    with pytest.raises(UnknownNameError, match="PassingThrough"):
        tr.load(path)
