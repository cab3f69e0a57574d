"""From a photo to a crop: a real portrait, synthetic heads, and everything that is not a usable face."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from geoinv_core.errors import Cancelled, PhotoError
from geoinv_core.photo import align, detect, find_faces, landmarks, prepare
from geoinv_core.progress import Progress
from geoinv_core.train import photolike

Rgb = NDArray[np.uint8]

# Read off the picture by eye: pupils and mouth corners.
POINTS = {
    "eye_left": (248, 101),
    "eye_right": (203, 101),
    "mouth_left": (242, 141),
    "mouth_right": (200, 141),
}


@pytest.fixture(scope="module")
def astronaut() -> Rgb:
    data: Any = pytest.importorskip("skimage.data", reason="scikit-image carries the portrait")
    return np.asarray(data.astronaut(), np.uint8)


def png(rgb: Rgb) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "PNG", compress_level=1)
    return out.getvalue()


def error_of(data: bytes, **options: Any) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        prepare(data, **options)
    assert str(caught.value).endswith(".")
    return caught.value


def empty_wall(height: int = 300, width: int = 400) -> Rgb:
    ramp = np.linspace(120, 190, width)[None, :, None] + np.linspace(0, 30, height)[:, None, None]
    return np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8)


def test_portrait(astronaut: Rgb, tmp_path: Path) -> None:
    file = tmp_path / "Porträt mit Leerzeichen – 宇航员.png"
    file.write_bytes(png(astronaut))
    stages: list[Progress] = []
    crop = prepare(file, on_progress=stages.append)
    assert crop.image.shape == (256, 256, 3)
    assert crop.warnings == []
    for name, (x, y) in POINTS.items():
        assert np.hypot(crop.points[name][0] - x, crop.points[name][1] - y) < 6, name
    centre, half = align.crop_square(POINTS)
    found, found_half = align.crop_square(crop.points)
    assert np.linalg.norm(centre - found) < 5
    assert np.linalg.norm(found_half) == pytest.approx(np.linalg.norm(half), rel=0.1)
    assert crop.landmarks is not None
    assert crop.landmarks.score > 0.8
    assert abs(crop.landmarks.yaw) < 15
    assert {s.stage for s in stages} == {"load", "detect"}
    # The image is what the matrix says it is.
    np.testing.assert_array_equal(crop.image, align.resample(astronaut, crop.matrix, 256))


def test_large_and_turned_files_give_the_same_crop(astronaut: Rgb) -> None:
    plain = prepare(png(astronaut[:320, :400]))
    large = cv2.resize(astronaut[:320, :400], None, fx=12, fy=12, interpolation=cv2.INTER_CUBIC)
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(large))).save(out, "JPEG", quality=92, exif=exif)
    crop = prepare(out.getvalue())
    for name, point in plain.points.items():
        assert np.hypot(*(np.array(crop.points[name]) / 12 - point)) < 3, name
    assert np.abs(crop.image.astype(int) - plain.image).mean() < 12


@pytest.mark.parametrize("angle", [-25, 20])
def test_tilted_head_comes_upright(astronaut: Rgb, angle: int) -> None:
    matrix = cv2.getRotationMatrix2D((224, 120), angle, 1.0)
    turned = np.asarray(
        cv2.warpAffine(astronaut, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE), np.uint8
    )
    crop = prepare(png(turned))
    seen = np.degrees(np.arctan2(crop.matrix[1, 0], crop.matrix[0, 0]))
    assert seen == pytest.approx(prepared_roll(astronaut) + angle, abs=5)


def prepared_roll(rgb: Rgb) -> float:
    matrix = prepare(png(rgb), points=POINTS).matrix
    return float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))


def test_points_by_hand_bypass_everything(astronaut: Rgb) -> None:
    crop = prepare(png(astronaut), points=POINTS, size=128)
    np.testing.assert_allclose(crop.matrix, align.crop_of_points(POINTS, 128))
    assert crop.landmarks is None
    # even where no detector would find a face
    assert prepare(png(empty_wall()), points=POINTS).image.shape == (256, 256, 3)


def test_box_by_hand(astronaut: Rgb) -> None:
    crop = prepare(png(astronaut), face_box=(170, 70, 280, 170))
    assert crop.face.box == (170, 70, 280, 170)
    for name, (x, y) in POINTS.items():
        assert np.hypot(crop.points[name][0] - x, crop.points[name][1] - y) < 6, name


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"points": {"eye_left": (1, 2)}}, "bad_points"),
        ({"points": dict.fromkeys(POINTS, (50, 50))}, "bad_points"),
        ({"points": dict.fromkeys(POINTS, (float("nan"), 5))}, "bad_points"),
        ({"points": dict.fromkeys(POINTS, (1e6, 5))}, "bad_points"),
        ({"points": dict.fromkeys(POINTS, "here")}, "bad_points"),
        ({"face_box": (10, 10, 10, 40)}, "bad_box"),
        ({"face_box": (10, 10, 40)}, "bad_box"),
        ({"face_box": (900, 10, 940, 60)}, "bad_box"),
        ({"face_box": (1, 1, float("inf"), 60)}, "bad_box"),
    ],
)
def test_nonsense_by_hand(options: dict[str, Any], code: str) -> None:
    assert error_of(png(empty_wall()), **options).code == code


def test_no_face() -> None:
    random = np.random.default_rng(3)
    noise = random.integers(0, 256, (160, 200, 3), dtype=np.uint8)
    stripes = (
        np.repeat(((np.arange(200) // 9 % 2) * 200)[None, :, None], 160, 0).repeat(3, 2).astype(np.uint8)
    )
    clouds = cv2.GaussianBlur(noise, (0, 0), 9)
    clouds = cv2.normalize(clouds, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    for rgb in (empty_wall(160, 200), noise, stripes, np.asarray(clouds, np.uint8)):
        assert find_faces(rgb) == []
    error = error_of(png(empty_wall(160, 200)))
    assert error.code == "no_face"
    assert "by hand" in str(error)


def test_a_face_that_no_detector_sees_is_found_by_its_points(
    astronaut: Rgb, monkeypatch: pytest.MonkeyPatch
) -> None:
    covered = astronaut[:300, 80:380].copy()  # hair over the right eye, from the crown to the cheek
    lock = np.array([(85, 0), (200, 0), (160, 60), (147, 110), (128, 160), (105, 185), (75, 110)], np.int32)
    cv2.fillPoly(covered, [lock], (70, 48, 35), cv2.LINE_AA)
    monkeypatch.setattr(detect.Search, "_look", lambda search, names, tilt: [])
    for factor in (1, 4):
        large = cv2.resize(covered, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        crop = prepare(png(np.asarray(large, np.uint8)))
        for name in ("eye_left", "mouth_left"):  # those that can be seen
            at = np.array(crop.points[name]) / factor + (80, 0)
            assert np.hypot(*(at - POINTS[name])) < 10, name
        assert any("hard to find" in w for w in crop.warnings)
    assert error_of(png(empty_wall())).code == "no_face"


def test_the_network_alone_sees_no_face_where_there_is_none() -> None:
    data: Any = pytest.importorskip("skimage.data", reason="scikit-image carries the pictures")
    for name in ("chelsea", "coffee", "rocket", "brick", "coins"):  # a cat's face is none
        picture = np.asarray(getattr(data, name)(), np.uint8)
        picture = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2)
        assert landmarks.seek(picture) is None, name
    random = np.random.default_rng(5)
    for scene in photolike.backgrounds(random, 12, 256):
        assert landmarks.seek(scene) is None


def test_several_faces_use_the_largest_and_say_so(astronaut: Rgb) -> None:
    portrait = astronaut[:260, 90:360]
    wall = empty_wall(320, 640)
    wall[:260, :270] = portrait
    wall[100:256, 400:562] = cv2.resize(portrait, (162, 156), interpolation=cv2.INTER_AREA)
    faces = find_faces(wall)
    assert len(faces) == 2
    assert faces[0].side > faces[1].side
    crop = prepare(png(wall))
    assert crop.points["eye_left"][0] == pytest.approx(248 - 90, abs=7)
    (warning,) = (w for w in crop.warnings if "faces found" in w)
    assert warning.startswith("2 faces found; the largest one, at ")
    other = prepare(png(wall), face_box=faces[1].box)
    assert other.points["eye_left"][0] > 400


def test_face_cut_by_the_border(astronaut: Rgb) -> None:
    crop = prepare(png(astronaut[:400, 200:]), face_box=(-20, 66, 75, 161))
    assert any("cut off" in w for w in crop.warnings)
    moved = {name: (x - 245, y) for name, (x, y) in POINTS.items()}
    error = error_of(png(astronaut[:400, 245:]), points=moved)
    assert error.code == "face_cut"


def test_forty_pixel_face_works_with_a_warning_and_ten_pixels_do_not(astronaut: Rgb) -> None:
    factor = 40 / 97
    small = cv2.resize(astronaut, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    crop = prepare(png(np.asarray(small, np.uint8)))
    assert any("little detail" in w for w in crop.warnings)
    for name, (x, y) in POINTS.items():
        assert np.hypot(crop.points[name][0] / factor - x, crop.points[name][1] / factor - y) < 9, name
    tiny = {name: (x * 0.08, y * 0.08) for name, (x, y) in POINTS.items()}
    assert error_of(png(np.asarray(small, np.uint8)), points=tiny).code == "face_too_small"


def test_cancelling_is_passed_on(astronaut: Rgb) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "detect":
            raise Cancelled

    with pytest.raises(Cancelled):
        prepare(png(astronaut), on_progress=stop)


def test_synthetic_heads_are_found_and_aligned(assets: Any) -> None:
    torch = pytest.importorskip("torch")
    from geoinv_core.camera import FOCAL, orbit, project
    from geoinv_core.heads import EVALUATION_SEEDS, Layers, build, picture, sample

    found, shifts, scales, rolls = 0, [], [], []
    for i in range(8):
        yaw = (-40, -25, -10, 0, 10, 25, 40, 15)[i]
        layers = Layers(assets, build(assets, [sample(assets, EVALUATION_SEEDS + i)])[0])
        camera = orbit(yaw, (i % 3 - 1) * 8.0, focal=FOCAL / 1.5)
        rgb = (picture(assets, layers, camera, 224, 1).rgb * 255).round().byte().numpy()
        marks = [layers.geometry.landmarks[n] for n in ("eyeball_l", "eyeball_r", "mouth_l", "mouth_r")]
        truth = (project(camera[None], torch.stack(marks).float()[None])[0][0] * 224).numpy()
        try:
            crop = prepare(png(rgb))
        except PhotoError:
            continue
        found += 1
        (a, h), (b, g) = align.crop_square(truth), align.crop_square(crop.points)
        shifts.append(np.linalg.norm(a - b) / np.linalg.norm(2 * h))
        scales.append(abs(np.log(np.linalg.norm(g) / np.linalg.norm(h))))
        rolls.append(abs(np.degrees(np.arctan2(g[1], g[0]) - np.arctan2(h[1], h[0]))))
    assert found >= 7
    assert np.median(shifts) < 0.015
    assert np.median(scales) < 0.06
    assert np.median(rolls) < 2.5


def test_half_of_a_spoiled_face_can_be_hidden() -> None:
    """Cards come over either side and over the lower half, and not too often."""
    points = np.zeros((14, 2), np.float32)
    points[:8] = [(90, 70), (40, 70), (82, 100), (48, 100), (65, 88), (65, 90), (65, 125), (65, 20)]
    square, scene = np.full((128, 128, 3), 200, np.uint8), np.zeros((128, 128, 3), np.uint8)
    face = np.zeros((128, 128), bool)
    face[40:120, 35:95] = True
    hidden = []
    for seed in range(400):
        changed = (photolike.spoil(np.random.default_rng(seed), square, points, scene) != 200).any(2) & face
        if changed[face].mean() > 0.3:
            rows, columns = np.nonzero(changed)
            hidden.append((rows.mean() - 80, columns.mean() - 65))
    away = np.array(hidden)
    sides = np.abs(away[:, 1]) > 8
    assert (away[sides, 1] > 0).any()
    assert (away[sides, 1] < 0).any()
    assert (away[~sides, 0] > 8).any()
    assert 0.03 < len(away) / 400 < 0.25
