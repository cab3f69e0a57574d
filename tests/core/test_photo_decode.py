"""Every kind of file a person may hand in, and what becomes of it."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from geoinv_core.errors import PhotoError
from geoinv_core.photo import decode


def scene(width: int = 48, height: int = 32) -> NDArray[np.uint8]:
    """A picture whose four corners differ, so that every turn and mirror shows."""
    rgb = np.full((height, width, 3), 90, np.uint8)
    h, w = height // 2, width // 2
    rgb[:h, :w] = (220, 30, 30)
    rgb[:h, w:] = (30, 200, 40)
    rgb[h:, :w] = (40, 50, 210)
    return rgb


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_declaring(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def code_of(source: Path | str | bytes) -> str:
    with pytest.raises(PhotoError) as caught:
        decode.load(source)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert ";" in message, "what happened; what to do"
    return caught.value.code


def test_plain_picture_comes_back_exactly(tmp_path: Path) -> None:
    rgb = scene()
    data = encoded(Image.fromarray(rgb))
    file = tmp_path / "ein Bild für Zoë – 肖像.png"
    file.write_bytes(data)
    for source in (file, str(file), data):
        photo = decode.load(source)
        np.testing.assert_array_equal(photo.rgb, rgb)
        assert photo.sha256 == hashlib.sha256(data).hexdigest()
        assert photo.warnings == []
        assert photo.full_size == (48, 32)
        assert photo.scale == 1.0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_every_exif_orientation_is_turned_upright(orientation: int, kind: str) -> None:
    upright = scene()
    # What a camera stores under each orientation, from the EXIF table: where row 0 and column 0 lie.
    stored = {
        1: upright,
        2: np.fliplr(upright),  # top, right
        3: np.rot90(upright, 2),  # bottom, right
        4: np.flipud(upright),  # bottom, left
        5: np.transpose(upright, (1, 0, 2)),  # left, top
        6: np.rot90(upright, 1),  # right, top: shown after a clockwise quarter turn
        7: np.rot90(np.transpose(upright, (1, 0, 2)), 2),  # right, bottom
        8: np.rot90(upright, -1),  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode.load(encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif))
    np.testing.assert_array_equal(photo.rgb, upright)
    assert photo.full_size == (48, 32)


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = encoded(Image.fromarray(scene()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode.load(data).rgb.shape == (32, 48, 3)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "PA"])
def test_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(scene()).convert("RGB" if mode != "PA" else "P").convert(mode)
    photo = decode.load(encoded(image, "TIFF" if mode == "PA" else "PNG"))
    assert photo.rgb.shape == (32, 48, 3)
    assert photo.rgb.dtype == np.uint8
    np.testing.assert_array_equal(photo.rgb, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    data = encoded(Image.fromarray(scene()).convert("CMYK"), kind)
    difference = np.abs(decode.load(data).rgb.astype(int) - scene())
    assert np.median(difference) <= 6, "not inverted, not shifted"


def test_transparency_shows_neutral_grey() -> None:
    rgba = np.dstack([scene(), np.full((32, 48), 255, np.uint8)])
    rgba[:16, :24, 3] = 0
    rgba[:16, 24:, 3] = 128
    photo = decode.load(encoded(Image.fromarray(rgba)))
    assert tuple(photo.rgb[4, 4]) == (128, 128, 128)
    np.testing.assert_allclose(photo.rgb[4, 40], (np.array([30, 200, 40]) + 128) / 2, atol=2)
    np.testing.assert_array_equal(photo.rgb[20:], scene()[20:])
    assert any("transparent" in w for w in photo.warnings)


def test_palette_transparency() -> None:
    image = Image.fromarray(scene()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    data = encoded(image, "PNG", transparency=int(np.asarray(image)[0, 0]))
    assert tuple(decode.load(data).rgb[0, 0]) == (128, 128, 128)


def test_sixteen_bit_grey_keeps_its_tones() -> None:
    ramp = np.linspace(0, 65535, 64 * 32).astype(np.uint16).reshape(32, 64)
    for kind in ("PNG", "TIFF"):
        photo = decode.load(encoded(Image.fromarray(ramp), kind))
        np.testing.assert_allclose(photo.rgb[..., 0], ramp / 257.0, atol=1)


def test_float_picture() -> None:
    ramp = np.linspace(0, 1, 64 * 32, dtype=np.float32).reshape(32, 64)
    ramp[0, 1] = np.nan
    photo = decode.load(encoded(Image.fromarray(ramp), "TIFF"))
    np.testing.assert_allclose(photo.rgb[1:, :, 0], ramp[1:] * 255, atol=1)
    assert photo.rgb[0, 1, 0] == 0


def test_colour_profile_is_applied_and_a_broken_one_survived() -> None:
    image = Image.fromarray(scene())
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = decode.load(encoded(image, "PNG", icc_profile=srgb))
    np.testing.assert_allclose(photo.rgb.astype(int), scene(), atol=2)
    assert photo.warnings == []
    photo = decode.load(encoded(image, "PNG", icc_profile=b"no profile at all" * 20))
    np.testing.assert_array_equal(photo.rgb, scene())
    assert any("profile" in w for w in photo.warnings)


def test_large_pictures_are_shrunk_and_know_it() -> None:
    big = Image.fromarray(scene()).resize((6000, 4000), Image.Resampling.NEAREST)
    for kind in ("JPEG", "PNG"):
        photo = decode.load(encoded(big, kind))
        assert photo.full_size == (6000, 4000)
        assert max(photo.rgb.shape) <= decode.MAX_SIDE
        assert photo.scale == pytest.approx(photo.rgb.shape[1] / 6000)
        np.testing.assert_allclose(photo.rgb[10, 10].astype(int), (220, 30, 30), atol=6)


def test_first_picture_of_several() -> None:
    first, second = Image.fromarray(scene()), Image.new("RGB", (48, 32))
    photo = decode.load(
        encoded(first.quantize(16), "GIF", save_all=True, append_images=[second.quantize(16)])
    )
    assert photo.rgb.max() > 100
    assert any("several pictures" in w for w in photo.warnings)


def test_no_image() -> None:
    assert code_of(b"Dear editor, please find my portrait enclosed.") == "not_an_image"
    assert code_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") == "not_an_image"
    assert code_of(b"\0" * 5000) == "not_an_image"
    assert code_of(b"\0\0\0\x18ftypheic" + b"\0" * 100) == "unsupported_format"


def test_empty_missing_folder(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert code_of(empty) == "empty_file"
    assert code_of(b"") == "empty_file"
    assert code_of(tmp_path / "nothing here.jpg") == "not_found"
    assert code_of(empty / "below a file.jpg") == "not_found"
    assert code_of(tmp_path) == "not_an_image"
    assert code_of("a\0b.jpg") == "unreadable"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "locked.png"
    file.write_bytes(encoded(Image.fromarray(scene())))
    file.chmod(0)
    assert code_of(file) == "unreadable"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_truncated(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert code_of(data[: max(12, int(len(data) * share))]) == "truncated"


def test_flipped_bytes_never_escape_as_something_else() -> None:
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"):
        whole = np.frombuffer(encoded(Image.fromarray(noise), kind), np.uint8)
        for _ in range(30):
            damaged = whole.copy()
            at = random.integers(0, min(len(whole), 200), 6)
            damaged[at] = random.integers(0, 256, 6)
            with suppress(PhotoError):
                assert decode.load(damaged.tobytes()).rgb.ndim == 3


@pytest.mark.parametrize("side", [30_000, 9_000, 2**31 - 1])
def test_declared_size_is_refused_before_decoding(side: int) -> None:
    assert code_of(png_declaring(side, side)) in (
        {"too_large"} if side < 10**6 else {"too_large", "truncated"}
    )


def test_large_file_is_refused_before_reading(tmp_path: Path) -> None:
    file = tmp_path / "huge.bmp"
    with file.open("wb") as out:
        out.truncate(decode.MAX_FILE_BYTES + 1)
    assert code_of(file) == "too_large"


def test_tiny_picture() -> None:
    assert code_of(encoded(Image.new("RGB", (3, 400)))) == "too_small"


def test_decoding_and_detection_do_not_load_torch() -> None:
    program = "import sys, geoinv_core.photo as p; p.find_faces; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
