"""From MakeHuman's files to the head data, against the data at hand where both exist."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoinv_core.camera import orbit
from geoinv_core.heads import HeadAssets, bake, convert, makehuman, textures
from geoinv_core.heads.draw import draw
from geoinv_core.heads.labels import sample

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def raw() -> Path:
    """A few files of an installation: base mesh, six targets, a brow, a hair style."""
    named = os.environ.get("GEOINV_HEADS_RAW")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "heads-raw"
    if not (folder / "3dobjs" / "base.obj").is_file():
        pytest.skip("no files of a MakeHuman installation are at hand: set GEOINV_HEADS_RAW to their folder")
    return folder


class Converted:
    def __init__(self, raw: Path) -> None:
        self.source = makehuman.Installation([raw])
        self.fits = {n: makehuman.read_fit(self.find(f"{n}/{n}.mhclo")) for n in ("eyebrow001", "short02")}
        self.base = convert.Base(makehuman.read_obj(self.find("3dobjs/base.obj")), list(self.fits.values()))

    def find(self, end: str) -> Path:
        path = self.source.find(end)
        assert path is not None, end
        return path


@pytest.fixture(scope="module")
def converted(raw: Path) -> Converted:
    return Converted(raw)


def test_the_skin_is_the_same_to_the_last_bit(converted: Converted, assets: HeadAssets) -> None:
    ours, theirs = converted.base.arrays(), assets.arrays
    ids = theirs["base_id"].astype(int)
    triangles = converted.base.id[ours["skin_tri"].astype(int)]
    assert np.array_equal(triangles, ids[theirs["skin_tri"].astype(int)])
    assert np.array_equal(ours["skin_is_head"], theirs["skin_is_head"])
    assert np.array_equal(ours["skin_tri_uv"], theirs["skin_tri_uv"])
    for eye in ("eye_l", "eye_r"):
        assert np.array_equal(converted.base.id[ours[eye].astype(int)], ids[theirs[eye].astype(int)])
    kept = np.isin(converted.base.id, ids)
    at = np.searchsorted(ids, converted.base.id[kept])
    assert np.array_equal(ours["rest"][kept], theirs["rest"][at])
    assert tuple(tuple(map(tuple, pair)) for pair in assets.meta["regions"]) == textures.REGIONS
    lips = [set(converted.base.id[ours["mask_lips"] > 0]), set(ids[theirs["mask_lips"] > 0])]
    assert len(lips[0] & lips[1]) / len(lips[0] | lips[1]) > 0.8


def test_landmarks_are_the_same_vertices(assets: HeadAssets) -> None:
    ids = assets.arrays["base_id"]
    assert {name: int(ids[v]) for name, v in assets.meta["landmarks"].items()} == convert.LANDMARKS


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("arkit/jawOpen", "faceunits/jawOpen.target"),
        ("arkit/mouthSmileLeft", "faceunits/mouthSmileLeft.target"),
        ("macro/african-male-old", "macrodetails/african-male-old.target"),
        ("macro/caucasian-female-young", "macrodetails/caucasian-female-young.target"),
        ("feat/nose-hump-decr", "nose/nose-hump-decr.target"),
        ("feat/nose-hump-incr", "nose/nose-hump-incr.target"),
    ],
)
def test_targets_are_the_same(converted: Converted, assets: HeadAssets, name: str, path: str) -> None:
    found = convert.morphs(converted.base, [makehuman.read_target(converted.find(path))])
    k = assets.target_index[name]
    part = slice(*assets.arrays["tgt_ptr"][k : k + 2])
    ids = assets.arrays["base_id"]
    theirs = dict(zip(ids[assets.arrays["tgt_idx"][part]], assets.arrays["tgt_delta"][part], strict=True))
    ours = dict(zip(converted.base.id[found["tgt_idx"]], found["tgt_delta"], strict=True))
    common = [v for v in ours if v in theirs]
    assert len(common) > 25
    assert set(ours) <= set(theirs)  # the data at hand keeps more helper vertices: it has more proxies
    assert all(np.array_equal(ours[v], theirs[v]) for v in common)


@pytest.mark.parametrize(("kind", "name"), [("eyebrows", "eyebrow001"), ("hair", "short02")])
def test_proxies_are_the_same(converted: Converted, assets: HeadAssets, kind: str, name: str) -> None:
    mesh = makehuman.read_obj(converted.find(f"{name}/{name}.obj"))
    ours = convert.proxy(converted.base, converted.fits[name], mesh)
    k = assets.proxy(kind, name).index
    ids = assets.arrays["base_id"]
    assert np.array_equal(converted.base.id[ours["ref"].astype(int)], ids[assets.arrays[f"px{k}_ref"]])
    for key in ("vid", "tri"):
        assert np.array_equal(ours[key], assets.arrays[f"px{k}_{key}"]), key
    for key in ("w", "off", "uv"):
        assert np.allclose(ours[key], assets.arrays[f"px{k}_{key}"], atol=1e-6), key
    if kind == "hair":
        vertices = convert.fitted(converted.base, converted.fits[name])
        baked = convert.hair_arrays(converted.base, vertices, mesh.triangles)
        height = assets.arrays[f"px{k}_depth"].astype(int)
        assert np.abs(baked["depth"] - height).mean() < 2  # of 255, which are 6 cm
        kept = np.isin(converted.base.id, ids)
        theirs = assets.arrays[f"px{k}_shadow"][np.searchsorted(ids, converted.base.id[kept])]
        assert np.corrcoef(baked["shadow"][kept], theirs)[0, 1] > 0.85


def test_openness_agrees(converted: Converted, assets: HeadAssets) -> None:
    ids = assets.arrays["base_id"]
    kept = np.isin(converted.base.id, ids)
    theirs = assets.arrays["ao"][np.searchsorted(ids, converted.base.id[kept])]
    ours = convert.openness(converted.base)[kept]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95


def test_missing_files_are_named_before_anything_is_written(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(makehuman.MissingFilesError, match=r"files are missing \(such as targets/macro"):
        convert.convert([raw], tmp_path / "heads")
    assert not (tmp_path / "heads").exists()


def test_a_whole_installation_becomes_heads_that_can_be_drawn(
    raw: Path, assets: HeadAssets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file that is needed, from the few at hand under all names, and pictures of one colour."""
    monkeypatch.setattr(bake, "_DIRECTIONS", 6)
    put(raw / "3dobjs" / "base.obj", tmp_path / "data" / "3dobjs" / "base.obj")
    folders = {"macro": "macrodetails", "body": "macrodetails/universal-", "arkit": "faceunits"}
    features = {"l": "eyes", "r": "eyes", "asym": "asym"}
    for name in assets.target_names:
        kind, _, stem = name.partition("/")
        folder = folders.get(kind) or features.get(stem.split("-")[0], stem.split("-")[0])
        for part, other in (("ear", "ears"), ("cheek", "cheek")):
            if stem.startswith((f"l-{part}", f"r-{part}")):
                folder = other
        path = f"{folder}{stem}" if folder.endswith("-") else f"{folder}/{stem}"
        put(raw / "targets" / "nose" / "nose-hump-decr.target", tmp_path / "targets" / f"{path}.target")
    for kind, names in convert.PROXIES.items():
        like = raw / ("eyebrows/eyebrow001/eyebrow001" if kind != "hair" else "hair/short02/short02")
        for name in names:
            for suffix in (".obj", ".mhclo"):
                put(like.with_suffix(suffix), tmp_path / kind / name / f"{name}{suffix}")
    for _, (path, _) in textures.sources(makehuman.Installation([tmp_path])).items():
        target = tmp_path / "pictures" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (64, 64), (150, 120, 100, 200)).save(target)
    made = convert.convert([tmp_path], tmp_path / "heads")
    again = HeadAssets.open(made)
    assert again.target_names == assets.target_names
    assert again.expressions == assets.expressions
    assert list(again.axes) == list(assets.axes)
    assert [(p.kind, p.name) for p in again.proxies] == [(p.kind, p.name) for p in assets.proxies]
    assert {p.name for p in (made / "tex").iterdir()} == {p.name for p in (assets.folder / "tex").iterdir()}
    assert set(again.arrays) == set(assets.arrays)
    assert all(again.arrays[k].dtype == assets.arrays[k].dtype for k in assets.arrays)
    picture = draw(again, [sample(again, 3)], orbit()[None, None], 48, 1)[0][0]
    assert 0.2 < picture.mask.mean() < 0.9


def put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def test_a_skin_texture_keeps_its_places_in_the_atlas(tmp_path: Path) -> None:
    """A picture whose colour says where it is: the atlas shows at each uv the colour of the original."""
    size = 512
    v, u = np.meshgrid(np.linspace(1, 0, size), np.linspace(0, 1, size), indexing="ij")
    pixels = np.stack([u * 255, v * 255, 0 * u], 2).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "skin.png")
    textures.skin(tmp_path / "skin.png", tmp_path / "atlas.png")
    atlas = np.asarray(Image.open(tmp_path / "atlas.png").convert("RGB"), np.float64) / 255
    uv = np.array([[[0.8, 0.5]] * 3, [[0.1, 0.6]] * 3, [[0.85, 0.05]] * 3, [[0.3, 0.9]] * 3])
    at = (textures.to_atlas(uv)[:, 0] * textures.ATLAS).astype(int)
    assert np.allclose(atlas[at[:, 1], at[:, 0], :2], uv[:, 0], atol=0.02)


def test_hair_loses_its_colour_and_keeps_its_opacity(tmp_path: Path) -> None:
    pixels: Any = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = (200, 100, 50, 255)
    pixels[:16, :32] = (100, 50, 25, 255)
    Image.fromarray(pixels).save(tmp_path / "hair.png")
    textures.hair(tmp_path / "hair.png", tmp_path / "packed.png")
    packed = np.asarray(Image.open(tmp_path / "packed.png"), np.float64) / 255
    assert packed.shape == (768, 768, 2)
    assert packed[400, 100, 1] == 1
    assert packed[400, 700, 1] == 0
    assert packed[100, 100, 0] / packed[400, 100, 0] == pytest.approx(0.5, abs=0.03)
    assert (packed[..., 0] * packed[..., 1]).sum() / packed[..., 1].sum() == pytest.approx(0.4, abs=0.01)
