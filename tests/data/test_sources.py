from __future__ import annotations

import io

import pytest
from PIL import Image, UnidentifiedImageError

from tokenred.data.sources import decode


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
