"""From what a user names to labelled images: folders, archives, splits, classes."""

from typing import Any

import pytest
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.models.vision_transformer import VisionTransformer
from timm.utils.misc import natural_key

from tests.data.conftest import ARCHIVES, MakeTree, Pack
from tests.shared import shared_path
from tokenred.core.errors import ConfigError, DataError, DataWarning
from tokenred.data import open_dataset
from tokenred.data.classes import CIFAR10_CLASSES, class_names
from tokenred.models import load_model

TENCH, GOLDFISH, LAST = "n01440764", "n01443537", "n15075141"


# ---------------------------------------------------------------- folders and archives


@pytest.mark.parametrize("suffix", ["", *ARCHIVES])
def test_folder_and_archives_agree(make_tree: MakeTree, pack: Pack, suffix: str) -> None:
    root = make_tree(["train/cat/0.png", "test/dog/10.png", "test/cat/0.png", "test/dog/9.png"])
    for name in ("test/cat/1.heic", "notes", "test/dog/.DS_Store"):
        (root / name).write_bytes(b"")
    with pytest.warns(DataWarning, match=r"1 × \.heic"):
        data = open_dataset(pack(root, suffix) if suffix else root, split="test")
    assert (data.classes, data.labels) == (("cat", "dog"), (0, 1, 1))
    assert [data.name_of(i)[-9:] for i in range(3)] == ["cat/0.png", "dog/9.png", "og/10.png"]
    assert [round(float(data[i][0][0, 0, 0]) * 255) for i in (2, 0, 1)] == [1, 2, 3]
    assert data.left_out[".heic"] == data.left_out["hidden"] == 1
    assert "left_out={" in repr(data)


def test_no_image_is_refused_with_what_there_is(make_tree: MakeTree) -> None:
    root = make_tree([])
    (root / "readme.txt").write_text("nothing here")
    with pytest.raises(DataError, match=r"found none but 1 × \.txt"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cat/0.JPEG", None), ("cat/0.WebP", None), ("cat/notes.TXT", ".txt"),
        ("cat/notes", "without a suffix"), ("cat/.a.png", "hidden"),
        ("__MACOSX/cat/0.png", "hidden"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::tokenred.core.errors.DataWarning")
def test_what_counts_as_an_image(make_tree: MakeTree, name: str, kind: str | None) -> None:
    root = make_tree()
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"")
    data = open_dataset(root)
    assert len(data) == 3 + (kind is None)
    assert sum(data.left_out.values()) == (kind is not None)
    assert kind is None or kind == "hidden" or kind in data.left_out


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "name or path of a dataset"), (None, "name or path of a dataset"),
        (3, "name or path of a dataset"), ("digit", r"Did you mean 'digits'\?"),
        (__file__, r"got the file .*\.py"),
    ],
)  # fmt: skip
def test_what_is_no_source_is_refused(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(source)


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize(
    ("split", "taken"),
    [(None, "val"), ("val", "val"), ("validation", "val"), ("test", "test"), ("own", "own")],
)
@pytest.mark.parametrize("wrapped", ["", "a/b/"])
@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_the_split_asked_for_is_taken(
    make_tree: MakeTree, pack: Pack, split: str | None, taken: str, wrapped: str, suffix: str
) -> None:
    paths = [f"{wrapped}{s}/{c}/deep/0.png" for s in ("train", "test", "own") for c in "xy"]
    root = make_tree([*paths, f"{wrapped}val/x/0.png", f"{wrapped}val/y/0.png"])
    data = open_dataset(pack(root, suffix) if suffix else root, split=split)
    assert data.classes == ("x", "y")
    place = root / wrapped / taken / "x"
    shown = data.name_of(0)
    assert f"{taken}/x" in (shown if suffix or wrapped else str(place))
    assert len(data) == 2


@pytest.mark.parametrize(
    ("paths", "split", "message"),
    [
        (["val/cat/0.png", "test/cat/0.png"], "train", "'train' in .*, found the splits val, test"),
        (["cat/0.png", "dog/0.png"], "test", "leave the split out"),
        (["cat/0.png", "1.png"], None, r"'1\.png' outside \(1 in all\)"),
    ],
)
def test_layouts_that_are_refused(
    make_tree: MakeTree, paths: list[str], split: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(make_tree(paths), split=split)


def test_a_class_may_be_called_test(make_tree: MakeTree) -> None:
    assert open_dataset(make_tree(["test/0.png", "exam/0.png"])).classes == ("exam", "test")


# ---------------------------------------------------------------- classes


def test_numbered_class_folders_have_timms_order(make_tree: MakeTree) -> None:
    names = [*map(str, range(12)), "a10b2", "A9", "a10b10", "x1", "x", "1x"]
    root = make_tree([f"{name}/0.png" for name in names])
    data = open_dataset(root)
    assert list(data.classes) == sorted(sorted(names), key=natural_key)
    reader = ReaderImageFolder(str(root))
    assert {name: rank for rank, name in enumerate(data.classes)} == reader.class_to_idx


@pytest.mark.parametrize(
    ("folders", "class_map", "labels", "count"),
    [
        ([TENCH, LAST], None, (0, 999), 1000),
        ([TENCH, LAST], "imagenet-1k", (0, 999), 1000),
        ([TENCH, LAST], 1000, (0, 999), 1000),
        ([GOLDFISH, LAST], "folders", (0, 1), 2),
        (["n00000001", TENCH], None, (0, 1), 2),
        (["cat", "dog"], 2, (0, 1), 2),
        (["cat", "dog"], {"cat": 5, "dog": 3, "emu": 0}, (5, 3), 6),
    ],
)
def test_class_maps(
    make_tree: MakeTree, folders: list[str], class_map: Any, labels: Any, count: int
) -> None:
    data = open_dataset(make_tree([f"{name}/0.png" for name in folders]), class_map=class_map)
    assert data.labels == labels
    assert len(data.classes) == count
    assert all(data.classes[label] == name for label, name in zip(labels, folders, strict=True))


@pytest.mark.parametrize(
    ("class_map", "error", "message"),
    [
        ({"cat": 0}, DataError, "also has dog"),
        ("imagenet-1k", DataError, "also has cat"),
        (3, DataError, "expected 3 classes in .* found 2"),
        *((wrong, ConfigError, "expected class_map")
          for wrong in ("imagenet", 0, True, 1.5, {"cat": -1}, {"cat": "0"})),
    ],
)  # fmt: skip
def test_class_maps_that_do_not_fit_are_refused(
    make_tree: MakeTree, class_map: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_dataset(make_tree(), class_map=class_map)


def test_names_of_a_models_classes() -> None:
    def vit(classes: int, **recorded: Any) -> VisionTransformer:
        model = VisionTransformer(
            img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=1, num_classes=classes
        )
        model.pretrained_cfg = recorded
        return model

    assert class_names(load_model("digits")) == tuple("0123456789")
    names = class_names(vit(1000))
    assert names is not None
    assert names[207] == "golden retriever"
    assert class_names(vit(2, label_names=["cat", "dog"])) == ("cat", "dog")
    assert class_names(vit(2, label_names=["cat"])) is None
    assert class_names(vit(7)) is None


# ---------------------------------------------------------------- data with a name


@pytest.mark.parametrize(("split", "count"), [(None, 360), ("test", 360), ("train", 1437)])
def test_digits_are_embedded(split: str | None, count: int) -> None:
    data = open_dataset("digits", split=split)
    assert (len(data), data.classes, data.name) == (count, tuple("0123456789"), "digits")
    image, label, _ = data[7]
    assert image.shape == (3, 32, 32)
    assert (image[0] == image[1]).all()
    assert 0.9 < float(image.max()) <= 1
    assert data.name_of(7) == f"digits/{split or 'test'}/0007"
    assert label == data.labels[7]
    # Stratified.
    assert all(abs(data.labels.count(k) / count - 0.1) < 0.005 for k in range(10))
    with pytest.raises(DataError, match="splits test and train, got 'val'"):
        open_dataset("digits", split="val")


def test_no_held_out_digit_is_in_train() -> None:
    train, test = (open_dataset("digits", split=split).source for split in ("train", "test"))
    seen = {train.raw(i) for i in range(len(train))}
    assert not seen & {test.raw(i) for i in range(len(test))}


@pytest.mark.parametrize("top", ["", "test/", "cifar10-test/", "cifar10/test/"])
def test_extracted_cifar10_in_every_layout(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch, top: str
) -> None:
    root = make_tree([f"{top}{name}/0.png" for name in CIFAR10_CLASSES])
    monkeypatch.setenv("TOKENRED_DATA", str(root))
    data = open_dataset("cifar10" if "cifar10" in top else f"cifar10:{root}")
    assert data.name == "cifar10"
    assert data.labels == tuple(range(10))


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_packed_cifar10_in_a_folder_that_the_environment_names(
    make_tree: MakeTree, pack: Pack, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    packed = pack(make_tree([f"train/{name}/0.png" for name in CIFAR10_CLASSES]), suffix)
    packed.rename(packed.with_name(f"cifar10-train{suffix}"))
    monkeypatch.setenv("TOKENRED_DATA", str(packed.parent))
    assert open_dataset("cifar10", split="train").classes == CIFAR10_CLASSES
    with pytest.raises(DataError, match=r"expected cifar10-test\.zip"):
        open_dataset("cifar10")


def test_cifar10_that_is_not_there(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENRED_DATA", raising=False)
    with pytest.raises(DataError, match=r"pass cifar10:PATH .* or set TOKENRED_DATA"):
        open_dataset("cifar10")
    with pytest.raises(DataError, match="found nothing"):
        open_dataset("cifar10:gone.zip")
    strange = f"cifar10:{make_tree(['test/emu/0.png', 'test/cat/0.png'])}"
    with pytest.raises(DataError, match="splits test and train, got 'val'"):
        open_dataset(strange, split="val")
    with pytest.raises(DataError, match="also has emu"):
        open_dataset(strange)


def test_the_shared_pictures() -> None:
    photographs = open_dataset(shared_path("data", "imagenet-sample-250.zip"), class_map=1000)
    assert photographs.labels == tuple(range(0, 1000, 4))
    small = open_dataset(f"cifar10:{shared_path('data', 'cifar10-test.zip')}")
    assert (len(small), small.classes) == (10_000, CIFAR10_CLASSES)
    assert small[9_999][0].shape == (3, 32, 32)
