"""The tables of what the methods do to real models, on a few white squares."""

from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tests.shared import script
from tokenred.data.classes import CIFAR10_CLASSES
from tokenred.models import load_model, save_checkpoint


def test_maps_and_features_by_hand(evidence: ModuleType) -> None:
    wanted = torch.tensor([[[0.0, 0.0], [1.0, 3.0]]] * 3)
    found = torch.stack((wanted[0] * 2 + 1, -wanted[0], torch.ones(2, 2)))
    maps = evidence.map_fidelity(found, wanted)
    # Scale and offset change the error and nothing else; a constant map follows nothing.
    assert maps["correlation"].tolist() == pytest.approx([1, -1, float("nan")], nan_ok=True)
    assert maps["error"].tolist() == pytest.approx([2, 2, 1.25 - 0.25])
    # Above its mean of 1 lies one place; of the negative, three others.
    assert maps["iou"].tolist() == pytest.approx([1, 0, 0])
    model, images = load_model("digits"), torch.rand(3, 3, 32, 32)
    dense = tr.wrap(model, tr.Strategy.dense()).kept_tokens(images)
    fewer = tr.wrap(model, "tome@0.6").kept_tokens(images, owners=True)
    for name, values in evidence.feature_fidelity(dense, dense).items():
        assert torch.allclose(values, torch.ones(3))
        assert evidence.feature_fidelity(fewer, dense)[name].mean() < 1 - 1e-4


def test_the_best_come_first_at_each_budget(evidence: ModuleType) -> None:
    frame = pd.DataFrame([
        {"method": "dense", "share": "", "cost": 1, "top1": 90.0},
        {"method": "sit", "share": "0.5", "cost": 0.5, "overhead": 0.01, "top1": 10.0,
         "from_dense": -80.0, "from_dense_low": -81.0, "from_dense_high": -79.0},
        {"method": "gtp", "share": "0.5", "cost": 0.5, "top1": 80.0},
        {"method": "tome", "share": "0.7", "cost": 0.7, "top1": 85.0},
    ])  # fmt: skip
    _, by, columns = evidence.SECTIONS["cifar10"]
    rows = evidence.table(frame, by, columns).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [
        "`dense`", "**at 0.7**", "`tome`", "**at 0.5**", "`gtp`", "`sit`*",
    ]  # fmt: skip
    assert "| 0.500 | 0.0100 | 10.00 | -80.0 [-81.0, -79.0] |" in rows[-1]


def test_a_run_into_a_folder_with_methods_of_ones_own(
    evidence: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for shade, name in enumerate(CIFAR10_CLASSES):
        (data / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (25 * shade,) * 3).save(data / name / "plain.png")
    given = ["cifar10", "--cifar10", str(data), "--results", str(tmp_path), "--shares", "0.7"]
    given += ["--methods", "gtp:alpha=0.2", "cubistmerge", "ats", "--also", "gtp"]
    assert evidence.main(given) == 0
    out = capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "evidence_cifar10.csv", keep_default_na=False)
    assert list(rows["method"]) == ["dense", "gtp:alpha=0.2", "cubistmerge", "ats", "gtp"]
    assert (rows["cost"][1:].astype(float) <= 0.72).all()
    assert set(rows["images"]) == {10}
    assert float(rows["overhead"][0]) == 0 < float(rows["overhead"][1])
    assert "speed-up" not in out
    assert evidence.main([*given[:7], "--methods", "gtp", "--speed", "2"]) == 0
    assert "| speed-up [90%] | realised |" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "evidence_cifar10.csv")
    assert (rows["speedup_low"] <= rows["speedup_high"]).all()
    assert all(f"`{name}`" in out for name in rows["method"])


def test_photographs_through_a_decoder(
    evidence: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real_vit, small = script("real_vit"), {"img_size": 56, "depth": 2, "init_values": 1.0}
    config = real_vit.CONFIG | small
    torch.manual_seed(0)
    parts = {"": VisionTransformer(**config), "decoder.": real_vit.Decoder()}
    state = {f"{at}{k}": v for at, part in parts.items() for k, v in part.state_dict().items()}
    path = save_checkpoint(tmp_path / "w.safetensors", state, {"config": config})
    photographs = tmp_path / "photographs"
    (photographs / "all").mkdir(parents=True)
    for number in range(3):
        noise = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(photographs / "all" / f"{number}.png")
    given = ["photographs", "--model", str(path), "--photographs", str(photographs)]
    given += ["--shares", "0.8", "--results", str(tmp_path), "--methods"]
    assert evidence.main([*given, "topk"]) == 0
    assert evidence.main([*given, "topk", "gtp"]) == 0
    rows = pd.read_csv(tmp_path / "evidence_photographs.csv").set_index(["method", "fill"])
    assert len(rows) == 2 + len(evidence.FILLS)
    assert rows.loc[("dense", "last"), ["correlation", "cls", "patches"]].tolist() == [1, 1, 1]
    assert 0 < rows.loc[("topk", "last"), "correlation"] < 1
    assert rows["from_gtp"].isna()[("gtp", "last")]
    assert rows["from_gtp"].notna()[("gtp", "own")]
    assert "| `topk` |" in capsys.readouterr().out
    assert "| 0.8 | `gtp` |" in evidence.fills(rows.reset_index())
    assert evidence.main([*given, "topk", "--shares", "0.7", "--limit", "2", "--keep"]) == 0
    assert "2 images at 0.7; 3 images at 0.8." in capsys.readouterr().out
    both = pd.read_csv(tmp_path / "evidence_photographs.csv")
    assert len(both) == len(rows) + 1
    assert evidence.main([*given, "topk", "--size", "42"]) == 0
    smaller = pd.read_csv(tmp_path / "evidence_photographs_42.csv").set_index("method")
    assert smaller.loc["topk", "correlation"] != rows.loc[("topk", "last"), "correlation"]


def test_what_is_missing_is_named(
    evidence: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evidence.main(["cifar10", "--cifar10", str(tmp_path / "none.zip")]) == 0
    assert "not found; see docs/results.md" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        evidence.main(["nonsense"])
    page = evidence.PAGE.read_text(encoding="utf-8")
    for name in [*evidence.SECTIONS, "fills"]:
        assert f"<!-- {name} -->\n" in page


def test_the_decoder_of_a_file(tmp_path: Path) -> None:
    real_vit = script("real_vit")
    decoder = real_vit.Decoder().eval()
    state = {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    path = save_checkpoint(tmp_path / "w.safetensors", {"norm.bias": torch.ones(1)} | state, {})
    tokens = torch.randn(2, 384, 3, 4)
    again = real_vit.read_decoder(path)
    assert torch.equal(again(tokens), decoder(tokens))
    assert again(tokens).shape == (2, 1, 24, 32)
