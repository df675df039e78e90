"""Items, batches, balanced subsets, and a model's own preprocessing."""

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tests.data.conftest import ARCHIVES, MakeTree, Pack
from tokenred.core.errors import ConfigError, DataError
from tokenred.data import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    SKIPPED_LABEL,
    ImageDataset,
    balanced_subset,
    eval_transform,
    make_loader,
    open_dataset,
)

GREY = 102 / 255


class Pictures:
    """Three images; the middle one cannot be read, and the names need not be UTF-8."""

    def __len__(self) -> int:
        return 3

    def name(self, index: int) -> str:
        return f"picture \udcff{index}"

    def image(self, index: int) -> Image.Image:
        if index == 1:
            raise OSError("cut off")
        return Image.new("RGB", (4, 5), (255, 0, 51))


def pictures(labels: Any = (1, 0, 1)) -> ImageDataset:
    return ImageDataset(Pictures(), labels, ("cat", "dog"), "pictures")


# ---------------------------------------------------------------- items


def test_an_item_is_image_label_and_index() -> None:
    data = pictures()
    image, label, index = data[2]
    assert image.shape == (3, 5, 4)
    assert image[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert (label, index) == (1, 2)
    assert data[-1][2] == 2
    assert [index for _, _, index in data] == [0, 1, 2]
    with pytest.raises(IndexError, match="below 3 in pictures"):
        data[3]
    assert repr(data) == "ImageDataset('pictures', images=3, classes=2)"
    for labels in ([], [0, 1]):
        with pytest.raises(DataError, match="one label each"):
            pictures(labels)


def test_an_unreadable_image_is_zeros_of_the_transforms_shape() -> None:
    data = pictures()
    data.transform = lambda _: torch.ones(3, 7, 7)
    assert data[0][0].shape == (3, 7, 7)
    image, label, index = data[1]
    assert torch.equal(image, torch.zeros(3, 7, 7))
    assert (label, index) == (SKIPPED_LABEL, 1)
    assert data.why_unreadable(1) == "OSError: cut off"

    def broken(_: Image.Image) -> Tensor:
        raise ZeroDivisionError

    data.transform = broken  # an error of the transform is not hidden
    with pytest.raises(ZeroDivisionError):
        data[0]


# ---------------------------------------------------------------- batches


def test_batches_come_in_order_and_leave_random_numbers_alone() -> None:
    data = open_dataset("digits")
    before = torch.random.get_rng_state()
    batches = list(make_loader(data, 100))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [len(labels) for _, labels, _ in batches] == [100, 100, 100, 60]
    assert torch.cat([index for _, _, index in batches]).tolist() == list(range(360))
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == list(data.labels)


def test_a_subset_is_even_fixed_by_the_seed_and_nested() -> None:
    data = open_dataset("digits")
    chosen = balanced_subset(data, 55)
    assert len(chosen) == 55
    assert set(Counter(data.labels[index] for index in chosen).values()) == {5, 6}
    assert chosen == sorted(chosen)
    assert max(chosen) > 300
    assert balanced_subset(data, 40) != balanced_subset(data, 40, seed=1)
    assert set(balanced_subset(data, 25)) < set(balanced_subset(data, 40)) < set(chosen)
    assert balanced_subset(data, 10_000) == list(range(360))
    assert len(balanced_subset(pictures(), 2)) == 2
    (_, labels, indices), *_ = make_loader(data, 20, limit=20, seed=3)
    assert indices.tolist() == balanced_subset(data, 20, seed=3)
    assert labels.tolist() == [data.labels[index] for index in indices]


def pixels(image: Any) -> Tensor:
    return torch.tensor(np.asarray(image.resize((4, 4)))).permute(2, 0, 1)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
@pytest.mark.parametrize("suffix", ["", *ARCHIVES])
def test_workers_read_archives_and_report_unreadable_images(
    make_tree: MakeTree, pack: Pack, suffix: str
) -> None:
    root = make_tree([f"cat/{i}.png" for i in range(8)])
    (root / "cat" / "3.png").write_bytes(b"not a picture")
    data = open_dataset(pack(root, suffix) if suffix else root, transform=pixels)
    data[0]  # a handle that is open before the fork must not be shared
    images, labels, indices = zip(*make_loader(data, 2, workers=2), strict=True)
    assert torch.cat(indices).tolist() == list(range(8))
    assert torch.cat(labels).tolist() == [0, 0, 0, -1, 0, 0, 0, 0]
    assert torch.cat(images)[:, 0, 0, 0].tolist() == [0, 1, 2, 0, 4, 5, 6, 7]
    assert pickle.loads(pickle.dumps(data))[5][0][0, 0, 0] == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("batch_size", True), ("workers", -1), ("limit", 0), ("limit", 1.5)],
)
def test_senseless_numbers_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a whole number"):
        make_loader(pictures(), **{"batch_size": 4, name: value})


# ---------------------------------------------------------------- preprocessing


def tiny(**recorded: Any) -> VisionTransformer:
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=8, depth=1, num_heads=1, num_classes=3
    )
    model.pretrained_cfg = recorded
    return model


def test_a_timm_model_keeps_its_own_preprocessing() -> None:
    model = timm.create_model("test_vit")
    out = eval_transform(model)(Image.new("RGB", (300, 260), (102, 102, 102)))
    assert out.shape == (3, 160, 160)
    assert out.mean().item() == pytest.approx((GREY - 0.5) / 0.5, abs=1e-5)
    smaller = timm.create_model("test_vit", img_size=64)
    assert eval_transform(smaller)(Image.new("RGB", (100, 80))).shape == (3, 64, 64)


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    noise = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8)
    made = eval_transform(tiny(crop_pct=1.0, mean=(0, 0, 0), std=(1, 1, 1)))
    out = pickle.loads(pickle.dumps(made))(Image.fromarray(noise.numpy()))
    assert torch.equal(out, noise.permute(2, 0, 1) / 255)


def test_statistics_are_the_callers_the_models_or_those_of_cifar10() -> None:
    image = Image.new("RGB", (32, 32), (102, 102, 102))
    given = eval_transform(tiny(), mean=(0.1, 0.2, 0.3), std=(1, 1, 2))(image)
    assert given[:, 0, 0].tolist() == pytest.approx([GREY - 0.1, GREY - 0.2, (GREY - 0.3) / 2])
    lent = eval_transform(tiny(), data="cifar10")(image)
    expected = [(GREY - m) / s for m, s in zip(CIFAR10_MEAN, CIFAR10_STD, strict=True)]
    assert lent[:, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)
    own = eval_transform(tiny(mean=(0.4, 0.4, 0.4), std=(1.0, 1.0, 1.0)), data="cifar10")(image)
    assert own[:, 0, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-5)


@pytest.mark.parametrize("wrong", [(0.5,), (1, 2, "x"), 3, (0, 0, float("nan"))])
def test_unusable_statistics_are_refused(wrong: Any) -> None:
    for name in ("mean", "std"):
        with pytest.raises(ConfigError, match=f"{name} must be three numbers"):
            eval_transform(tiny(), **{name: wrong})
    with pytest.raises(ConfigError, match="three numbers above 0"):
        eval_transform(tiny(), std=(1, 1, 0))
