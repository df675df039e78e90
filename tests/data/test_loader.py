from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenred.core.errors import ConfigError
from tokenred.data import balanced_subset, make_loader, open_dataset
from tokenred.data.dataset import ImageDataset


def test_batches_come_in_order_and_leave_random_numbers_alone() -> None:
    data = open_dataset("digits")
    before = torch.random.get_rng_state()

    batches = list(make_loader(data, 100))

    assert torch.equal(torch.random.get_rng_state(), before)
    assert [len(labels) for _, labels, _ in batches] == [100, 100, 100, 60]
    assert torch.cat([index for _, _, index in batches]).tolist() == list(range(360))
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == list(data.labels)


def test_a_limit_takes_even_classes_from_everywhere() -> None:
    data = open_dataset("digits")
    chosen = balanced_subset(data, 55)

    counts = Counter(data.labels[index] for index in chosen)
    assert len(chosen) == 55
    assert set(counts.values()) == {5, 6}
    assert chosen == sorted(chosen)
    assert max(chosen) > 300


def test_the_choice_is_fixed_by_the_seed_and_nested() -> None:
    data = open_dataset("digits")

    assert balanced_subset(data, 40) == balanced_subset(data, 40)
    assert balanced_subset(data, 40) != balanced_subset(data, 40, seed=1)
    assert set(balanced_subset(data, 25)) < set(balanced_subset(data, 40))
    assert balanced_subset(data, 10_000) == list(range(360))


def test_the_choice_does_not_hang_on_the_order() -> None:
    data = open_dataset("digits")

    class Backwards:
        def __len__(self) -> int:
            return len(data)

        def name(self, index: int) -> str:
            return data.name_of(359 - index)

        image = data.source.image

    turned = ImageDataset(Backwards(), data.labels[::-1], data.classes, "turned")

    assert {turned.name_of(i) for i in balanced_subset(turned, 33)} == {
        data.name_of(i) for i in balanced_subset(data, 33)
    }


def test_the_loader_of_a_part_gives_the_datasets_indices() -> None:
    data = open_dataset("digits")

    (_, labels, indices), *_ = make_loader(data, 20, limit=20, seed=3)

    assert indices.tolist() == balanced_subset(data, 20, seed=3)
    assert labels.tolist() == [data.labels[index] for index in indices]


def test_workers_read_archives_and_tell_of_unreadable_images(
    make_tree: Callable[..., Path], pack: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    root = make_tree([f"cat/{i}.png" for i in range(8)])
    (root / "cat" / "3.png").write_bytes(b"not a picture")
    data = open_dataset(pack(root, tmp_path))
    data.transform = pixels
    data[0]  # A handle that is open before the fork must not be shared.

    images, labels, indices = zip(*make_loader(data, 2, workers=2), strict=True)

    assert torch.cat(indices).tolist() == list(range(8))
    assert torch.cat(labels).tolist() == [0, 0, 0, -1, 0, 0, 0, 0]
    assert torch.cat(images)[:, 0, 0, 0].mul(255).round().tolist() == [0, 1, 2, 0, 4, 5, 6, 7]
    assert data.name_of(3).endswith("cat/3.png")
    assert "UnidentifiedImageError" in str(data.why_unreadable(3))
    close = getattr(getattr(data.source, "whole", None), "close", None)
    if close:
        close()


def pixels(image: Any) -> torch.Tensor:
    from torchvision.transforms.functional import to_tensor

    return to_tensor(image.resize((4, 4)))


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"batch_size": True}, {"workers": -1}, {"limit": 0}, {"limit": 1.5}],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=f"expected {name} as a whole number"):
        make_loader(open_dataset("digits"), **{"batch_size": 4, **options})


def test_names_need_not_be_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_dataset("digits")
    monkeypatch.setattr(data.source, "name", lambda index: f"\udcff{index}")

    assert len(balanced_subset(data, 10)) == 10
