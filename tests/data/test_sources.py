from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from tokenred.data.sources import decode, read_image, to_rgb


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "RGB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = decode(encoded(Image.new(mode, (5, 4))))

    assert (image.mode, image.size) == ("RGB", (5, 4))


def test_a_text_is_no_image() -> None:
    with pytest.raises(UnidentifiedImageError):
        decode(b"not a picture")


def test_a_cut_file_is_refused() -> None:
    whole = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")

    with pytest.raises(OSError, match="truncated"):
        decode(whole[: len(whole) // 2])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_of_grey_are_scaled(kind: str) -> None:
    grey = Image.fromarray(np.array([[0, 300, 32768, 65535]], np.uint16))

    image = decode(encoded(grey, kind))

    assert np.asarray(image)[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_16_bits_in_the_other_order_are_scaled() -> None:
    grey = Image.frombytes("I;16B", (2, 1), np.array([[257, 65535]], ">u2").tobytes())

    assert np.asarray(to_rgb(grey))[0, :, 0].tolist() == [1, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_white_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="no stated white"):
        decode(encoded(Image.new(mode, (4, 4)), "TIFF"))


@pytest.mark.parametrize("colour", [(255, 0, 51), (0, 0, 0)])
@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "CMYK", "1", "YCbCr", "PA"])
def test_every_mode_has_the_colours_that_timm_sees(mode: str, colour: tuple[int, ...]) -> None:
    image = Image.new("RGB", (2, 2), colour).convert(mode)

    assert np.array_equal(to_rgb(image), image.convert("RGB"))


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=bytes([0, 128]))

    assert np.asarray(decode(buffer.getvalue()))[0].tolist() == [[255, 0, 0], [0, 255, 0]]


@pytest.mark.parametrize("size", [(1, 65000), (65000, 1), (2, 201)])
def test_thin_giants_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="more than 100 times as long"):
        decode(encoded(Image.new("1", size)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_that_came_later_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.png")

    with pytest.raises(ValueError, match="no regular file"):
        read_image(tmp_path / "1.png")
