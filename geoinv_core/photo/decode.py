"""Photo files to pixels: upright, 8 bit, sRGB, and never more memory than the limits below allow.

Pillow does the decoding. What this module adds is a list of formats (no format that starts another program),
limits that are checked on the declared size before any pixel is decoded, upright orientation, colour
management, and one clear sentence for everything that can be wrong with a file.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings as quiet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from geoinv_core.errors import PhotoError

MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
MAX_SIDE = 4096
"""Larger pictures are shrunk to this side while they are decoded; a head crop never needs more."""
MIN_SIDE = 16

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM")
GREY = 128
"""What shows through transparent parts, sRGB."""

_EXIF_ORIENTATION = 0x0112
_lock = threading.Lock()  # warning filters are the whole process's
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF8", b"\0\0\0\x0cjP")


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Positions in it are continuous: x to the right, y down, the centre of the first pixel at (.5, .5).
    """

    rgb: NDArray[np.uint8]
    """[H, W, 3] sRGB, upright."""
    sha256: str
    """Of the file's bytes, hexadecimal."""
    warnings: list[str] = field(default_factory=list)
    full_size: tuple[int, int] = (0, 0)
    """(width, height) of the upright picture in the file; `rgb` is smaller when that exceeds MAX_SIDE."""
    name: str = "the photo"

    @property
    def scale(self) -> float:
        """Pixels of `rgb` per pixel of the file (1 unless the picture was shrunk)."""
        return max(self.rgb.shape[:2]) / max(self.full_size) if max(self.full_size) else 1.0


def load(source: Path | str | bytes) -> Photo:
    """Decode a photo from a path or from the bytes of a file.

    Raises: PhotoError with `code` not_found, unreadable, empty_file, not_an_image, unsupported_format,
        truncated, too_large or too_small.
    """
    data, name = _read(source)
    with _lock, quiet.catch_warnings():
        # Pillow warns of oddities that do not matter here (broken EXIF) and of one that does.
        quiet.simplefilter("ignore")
        quiet.simplefilter("error", Image.DecompressionBombWarning)
        return _decode(data, name)


def _decode(data: bytes, name: str) -> Photo:
    if not data:
        raise PhotoError(f"{name} is empty (0 bytes), so it shows nothing; choose another.", "empty_file")
    if len(data) > MAX_FILE_BYTES:
        raise _file_too_large(name, len(data))
    warnings: list[str] = []
    image = _open(data, name)
    full = image.size
    if full[0] * full[1] > MAX_PIXELS:
        raise _too_many_pixels(name, f"{full[0]} x {full[1]} pixels")
    if min(full) < MIN_SIDE:
        raise PhotoError(
            f"{name} is only {full[0]} x {full[1]} pixels, too small to show a face; choose a larger photo.",
            "too_small",
        )
    try:
        animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))
        image.draft(None, (MAX_SIDE, MAX_SIDE))  # JPEG can decode at a fraction of its size; others ignore it
        image.load()
        orientation = _orientation(image)
        rgb = _shrink(_to_srgb(image, warnings))
    except MemoryError as error:
        raise _too_many_pixels(name, f"{full[0]} x {full[1]} pixels, more than memory holds") from error
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise PhotoError(
            f"{name} is damaged or incomplete ({_reason(error)}); copy or download it again.",
            "truncated",
        ) from error
    if animated:
        warnings.append("The file holds several pictures; the first one was used.")
    pixels = _upright(np.asarray(rgb), orientation)
    if orientation >= 5:
        full = (full[1], full[0])
    return Photo(np.ascontiguousarray(pixels), hashlib.sha256(data).hexdigest(), warnings, full, name)


def _read(source: Path | str | bytes) -> tuple[bytes, str]:
    """The file's bytes and what to call it in a message."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), "The photo"
    path = Path(source)
    name = f"“{path.name}”"
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise PhotoError(f"{name} is a folder, not a photo; choose a file inside it.", "not_an_image")
        if size > MAX_FILE_BYTES:
            raise _file_too_large(name, size)
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1), name
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PhotoError(f"{name} does not exist in {path.parent}; check the path.", "not_found") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise PhotoError(
            f"{name} cannot be read ({_reason(error)}); check its permissions.", "unreadable"
        ) from error


def _open(data: bytes, name: str) -> Image.Image:
    """Parse the header only."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(name, "far more pixels than a photo has") from error
    except UnidentifiedImageError as error:
        if data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif", b"msf"):
            raise PhotoError(
                f"{name} is a HEIC picture, which this program cannot decode; save it as JPEG or PNG.",
                "unsupported_format",
            ) from error
        if data.startswith(_MAGIC):
            raise PhotoError(
                f"{name} is damaged or incomplete (its header cannot be read); copy or download it again.",
                "truncated",
            ) from error
        raise PhotoError(
            f"{name} is not an image that this program knows; choose a JPEG, PNG, WebP, TIFF or BMP file.",
            "not_an_image",
        ) from error
    except Exception as error:  # a header can break a parser in as many ways as the pixels can
        raise PhotoError(
            f"{name} is damaged or incomplete ({_reason(error)}); copy or download it again.", "truncated"
        ) from error


def _file_too_large(name: str, size: int) -> PhotoError:
    return PhotoError(
        f"{name} is {size / 2**20:.0f} MB, more than the {MAX_FILE_BYTES // 2**20} MB allowed; "
        "save a smaller copy.",
        "too_large",
    )


def _too_many_pixels(name: str, size: str) -> PhotoError:
    return PhotoError(
        f"{name} declares {size}, and at most {MAX_PIXELS // 10**6} megapixels are allowed; "
        "save a smaller copy.",
        "too_large",
    )


def _reason(error: BaseException) -> str:
    text = (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip().rstrip(".")
    return text.splitlines()[0][:120]


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8. Read after decoding: the TIFF decoder turns the picture and drops the tag."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels, which are already decoded
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(rgb: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation, which says where the stored first row and column belong (EXIF 2.3, 4.6.4)."""
    if orientation >= 5:
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    return rgb


def _shrink(image: Image.Image) -> Image.Image:
    if max(image.size) <= MAX_SIDE:
        return image
    factor = MAX_SIDE / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _to_srgb(image: Image.Image, warnings: list[str]) -> Image.Image:
    """Any mode that Pillow decodes to mode RGB, sRGB encoded."""
    image = _to_8_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        profile = image.info.get("icc_profile")
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            warnings.append("The transparent parts of the picture were filled with grey.")
        flat = Image.new("RGBA", image.size, (GREY, GREY, GREY, 255))
        image = Image.alpha_composite(flat, image).convert("RGB")
        if profile:
            image.info["icc_profile"] = profile
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    return _apply_profile(image, warnings)


def _apply_profile(image: Image.Image, warnings: list[str]) -> Image.Image:
    """Through the embedded profile to sRGB (phones store Display P3, printers CMYK); as it is without one."""
    data: Any = image.info.get("icc_profile")
    if data:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
            space = profile.profile.xcolor_space.strip()
            if {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}[image.mode] == space:
                converted = ImageCms.profileToProfile(
                    image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
                )
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            warnings.append(f"The colour profile cannot be read and was ignored ({_reason(error)}).")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Integer pictures of 16 or 32 bits and float pictures to mode L; other modes are left alone."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    if image.mode == "F":
        white = 1.0 if top <= 1 else 255.0 if top <= 255 else top
    else:  # 16 bit files have 65535 as white; 32 bit files carry no white point, so their maximum stands in
        white = 65535.0 if image.mode.startswith("I;16") or 255 < top <= 65535 else max(top, 255.0)
    return Image.fromarray(np.clip(values * (255.0 / white) + 0.5, 0, 255).astype(np.uint8))
