"""Files as they come: damaged, too large, linked in circles, no pictures at all."""

import io
import os
import socket
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import ARCHIVES, MakeTree, Pack
from tokenred.core.errors import DataError
from tokenred.data import open_dataset
from tokenred.data.dataset import ImageDataset
from tokenred.data.sources import decode, to_rgb

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.DataWarning")

TOO_LARGE = (1 << 28) + 1


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def names(data: ImageDataset) -> list[str]:
    return [data.name_of(index) for index in range(len(data))]


# ---------------------------------------------------------------- pictures


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=bytes([0, 128]))
    assert np.asarray(decode(buffer.getvalue()))[0].tolist() == [[255, 0, 0], [0, 255, 0]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_of_grey_are_scaled(kind: str) -> None:
    grey = Image.fromarray(np.array([[0, 300, 32768, 65535]], np.uint16))
    image = decode(encoded(grey, kind))
    assert np.asarray(image)[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]
    other_order = Image.frombytes("I;16B", (2, 1), np.array([[257, 65535]], ">u2").tobytes())
    assert np.asarray(to_rgb(other_order))[0, :, 0].tolist() == [1, 255]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not a picture", "UnidentifiedImageError"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:900], "truncated"),
        (encoded(Image.new("1", (1, 65000))), "more than 100 times as long"),
        (encoded(Image.new("1", (201, 2))), "more than 100 times as long"),
        (encoded(Image.new("I", (4, 4)), "TIFF"), "no defined white"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "no defined white"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".zip", ".tar"])
def test_a_picture_that_cannot_be_read_is_named_and_skipped(
    make_tree: MakeTree, pack: Pack, content: bytes, why: str, suffix: str
) -> None:
    root = make_tree()
    (root / "cat/1.png").write_bytes(content)
    data = open_dataset(pack(root, suffix) if suffix else root)
    image, label, index = data[1]
    assert (float(image.abs().sum()), label, index) == (0, -1, 1)
    assert why in str(data.why_unreadable(1))
    assert data.why_unreadable(0) is None
    assert data[2][1] == 1


# ---------------------------------------------------------------- folders

LOOPS = {
    "to the parent": ["a/l ..", "b/l .."],
    "to itself": ["a/l ."],
    "to the other class": ["a/l ../b", "b/l ../a"],
    "to above the root": ["a/l ../.."],
    "through one another": ["a/1 ../b", "a/2 ../b", "b/1 ../a", "b/2 ../a", "b/3 a", "a/3 2"],
}


@pytest.mark.parametrize("links", LOOPS.values(), ids=LOOPS)
def test_links_in_circles_give_each_image_once(make_tree: MakeTree, links: list[str]) -> None:
    root = make_tree(["a/0.png", "b/0.png"])
    for link in links:
        at, to = link.split()
        (root / at).symlink_to(to)
    data = open_dataset(root)
    assert names(data) == ["a/0.png", "b/0.png"]
    assert sum(data.left_out.values()) == len(links)


def test_links_to_elsewhere_are_followed(make_tree: MakeTree) -> None:
    there = make_tree(["tabby/0.png"], name="there")
    root = make_tree(["dog/0.png"])
    (root / "cat").symlink_to(there / "tabby")
    (root / "dog/1.png").symlink_to(there / "tabby/0.png")
    assert names(open_dataset(root)) == ["cat/0.png", "dog/0.png", "dog/1.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_what_is_no_regular_file_is_counted(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(["a/0.PNG", "a/0.webp", "a/9.png"])
    os.mkfifo(root / "a/1.png")
    (root / "a/2.png").symlink_to("/nowhere")
    (root / "a/3.png").symlink_to("3.png")
    monkeypatch.chdir(root / "a")  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("4.png")
    data = open_dataset(root)
    assert names(data) == ["a/0.PNG", "a/0.webp", "a/9.png"]
    assert data.left_out == {"FIFO, socket or device": 2, "link to nothing": 2}
    # One that comes in the file's place later does not block.
    (root / "a/9.png").unlink()
    os.mkfifo(root / "a/9.png")
    assert data[2][1] == -1
    assert data.why_unreadable(2) == "ValueError: not a regular file"


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_what_is_no_archive_is_refused(make_tree: MakeTree, pack: Pack, suffix: str) -> None:
    path = pack(make_tree(), suffix)
    whole = path.read_bytes()
    for content in (b"", b"no archive" * 200, whole[: len(whole) // 3]):
        path.write_bytes(content)
        kind = "zip" if suffix == ".zip" else "tar"
        with pytest.raises(DataError, match=f"readable {kind} file at"):
            open_dataset(path)


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar"])
def test_a_file_too_large_for_a_picture_is_not_read(
    make_tree: MakeTree, pack: Pack, suffix: str
) -> None:
    root = make_tree(["a/0.png"])
    path = pack(root, suffix) if suffix else root
    if suffix == ".zip":  # the directory says what it unpacks to
        whole = bytearray(path.read_bytes())
        at = whole.index(b"PK\x01\x02") + 24
        whole[at : at + 4] = struct.pack("<I", TOO_LARGE)
        path.write_bytes(whole)
    elif suffix:
        info = tarfile.TarInfo("a/0.png")
        info.size = TOO_LARGE
        path.write_bytes(info.tobuf())
    sparse = root / "a/0.png" if path == root else path
    if suffix != ".zip":
        os.truncate(sparse, TOO_LARGE + 2048)
    assert f"over {TOO_LARGE - 1}" in str(open_dataset(path).why_unreadable(0))


def test_links_in_a_tar_have_the_content_of_what_they_lead_to(
    make_tree: MakeTree, pack: Pack
) -> None:
    root = make_tree(["a/0.png", "b/0.png"])
    (root / "b/hard.png").hardlink_to(root / "a/0.png")
    for name, target in (("soft", "../b/0"), ("soft2", "soft"), ("loop", "loop"), ("lost", "no")):
        (root / f"a/{name}.png").symlink_to(f"{target}.png")
    os.mkfifo(root / "a/fifo.png")
    data = open_dataset(pack(root, ".tar"))
    reds = {data.name_of(i): round(float(data[i][0][0, 0, 0]) * 255) for i in range(len(data))}
    ones = dict.fromkeys(["a/soft.png", "a/soft2.png", "b/0.png"], 1)
    assert reds == ones | dict.fromkeys(["a/0.png", "b/hard.png"], 0)
    assert data.left_out == {"link to nothing": 2, "FIFO or device": 1}
