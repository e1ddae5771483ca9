from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusemix.extract.images import SquareImage

RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)
READ = SquareImage(32)


def svg(width: int, height: int, begin: str = "", inside: str = "") -> bytes:
    head = f'{begin}<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
    return f'{head}<rect width="{width}" height="{height}" fill="red"/>{inside}</svg>'.encode()


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def colours(raw: bytes) -> set[tuple[int, ...]]:
    pixels = READ(raw)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    return set(map(tuple, pixels.reshape(-1, 3).tolist()))


@pytest.mark.parametrize("begin", ["", "\ufeff", "\n ", '<?xml version="1.0"?>', "<!-- c -->", "<!DOCTYPE svg>"])
def test_an_svg_is_known_by_its_beginning(begin: str) -> None:
    assert colours(svg(10, 10, begin)) == {RED}


@pytest.mark.parametrize(("width", "height"), [(20, 10), (10, 20)])
def test_an_svg_is_drawn_to_fit_on_white(width: int, height: int) -> None:
    pixels = READ(svg(width, height))
    along = pixels[:, 16] if width > height else pixels[16]
    assert [tuple(pixel) for pixel in along.tolist()] == [WHITE] * 8 + [RED] * 16 + [WHITE] * 8


@pytest.mark.parametrize(("width", "height"), [(1, 1_000_000), (1_000_000, 1)])
def test_an_svg_of_extreme_aspect_costs_no_memory(width: int, height: int) -> None:
    assert colours(svg(width, height)) <= {RED, WHITE}


def test_a_broken_svg_is_refused() -> None:
    with pytest.raises(ValueError, match="root node"):
        READ(svg(1, 1)[:-6])


@pytest.mark.parametrize("element", ["image", "feImage"])
@pytest.mark.parametrize("link", ["/etc/passwd", "../x.png", "file:///x.png", "&file;"])
def test_an_svg_may_not_draw_other_files(element: str, link: str) -> None:
    with pytest.raises(ValueError, match="the SVG refers to another file: href"):
        READ(svg(10, 10, inside=f'<{element} href="{link}"/>'))


def test_an_svg_may_hold_links_and_pictures_of_its_own() -> None:
    assert colours(svg(10, 10, inside='<a href="https://x.org"/><use href="#a"/><image href="data:,"/>')) == {RED}


def test_transparency_becomes_white() -> None:
    picture = Image.new("RGBA", (64, 64), (*RED, 0))
    picture.paste((*RED, 255), (0, 0, 32, 64))
    assert colours(encoded(picture)) >= {RED, WHITE}
    assert colours(encoded(Image.new("LA", (40, 40), (0, 0)))) == {WHITE}
    assert colours(encoded(Image.new("P", (40, 40)), transparency=0)) == {WHITE}


def test_the_shorter_side_fits_and_the_centre_is_kept() -> None:
    picture = Image.new("RGB", (96, 32), BLUE)
    picture.paste(RED, (32, 0, 64, 32))
    assert colours(encoded(picture)) == {RED}


def test_the_camera_s_rotation_is_undone() -> None:
    picture = Image.new("RGB", (32, 32), RED)
    picture.paste(BLUE, (0, 0, 16, 32))
    exif = Image.Exif()
    exif[0x112] = 6  # a quarter turn clockwise brings the blue left side to the top
    pixels = READ(encoded(picture, exif=exif))
    assert tuple(pixels[4, 16]) == BLUE
    assert tuple(pixels[28, 16]) == RED


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = np.full((40, 40), 0x8000, np.uint16)
    assert colours(encoded(Image.fromarray(grey))) == {(128, 128, 128)}


def test_pixels_of_unknown_range_are_refused() -> None:
    with pytest.raises(ValueError, match="mode 'F'"):
        READ(encoded(Image.new("F", (4, 4)), "TIFF"))


@pytest.mark.parametrize("raw", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a picture of a known format"):
        READ(raw)


def test_a_truncated_picture_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    raw = encoded(Image.fromarray(noise), "JPEG")
    with pytest.raises(OSError, match="truncated"):
        READ(raw[: len(raw) // 2])


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"Image size .{side**2} pixels"):
        READ(encoded(Image.new("1", (side, side))))


def test_a_file_too_large_to_be_a_picture_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="more than a picture should"):
        READ(path)


def test_a_path_a_string_and_bytes_give_the_same(tmp_path: Path) -> None:
    raw = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)))
    path = tmp_path / "picture.png"
    path.write_bytes(raw)
    for source in (path, str(path)):
        assert np.array_equal(READ(source), READ(raw))


def test_a_worker_can_be_sent_it() -> None:
    assert pickle.loads(pickle.dumps(READ)) == READ
    assert "32" in READ.description
    assert "Pillow" in READ.description
