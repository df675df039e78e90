from __future__ import annotations

from pathlib import Path

import pytest

from tokenred.core.errors import DataError
from tokenred.data.cifar10 import CIFAR10_CLASSES, DATA_VARIABLE, find_cifar10


def test_classes_are_in_alphabetical_order() -> None:
    assert list(CIFAR10_CLASSES) == sorted(CIFAR10_CLASSES)


@pytest.mark.parametrize("name", ["cifar10-test.zip", "cifar10-test", "cifar10", "cifar10.tar"])
def test_it_is_found_in_the_folder_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).touch()
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))

    assert find_cifar10("", "test") == tmp_path / name


def test_a_given_folder_may_be_or_hold_the_data(tmp_path: Path) -> None:
    assert find_cifar10(str(tmp_path), "test") == tmp_path

    (tmp_path / "cifar10-train.zip").touch()

    assert find_cifar10(str(tmp_path), "train") == tmp_path / "cifar10-train.zip"
    assert find_cifar10(str(tmp_path), "test") == tmp_path


def test_without_a_hint_it_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)

    with pytest.raises(DataError, match=r"pass cifar10:PATH .* or set TOKENRED_DATA"):
        find_cifar10("", "test")


def test_a_folder_without_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))

    with pytest.raises(DataError, match=r"expected cifar10-train\.zip"):
        find_cifar10("", "train")


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing"):
        find_cifar10(str(tmp_path / "gone.zip"), "test")


def test_another_split_is_refused() -> None:
    with pytest.raises(DataError, match="splits test and train, got 'val'"):
        find_cifar10("", "val")
