"""Atlas, texture baking and the photo's pixels, on heads whose true colours are known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from geoinv_core.camera import orbit
from geoinv_core.errors import Cancelled, GeoInvError
from geoinv_core.mesh.atlas import unwrap
from geoinv_core.mesh.bake import PhotoView, bake, texel_map
from geoinv_core.mesh.blend import Blended, Ground, blend_photo
from geoinv_core.mesh.colour import to_linear, to_srgb
from geoinv_core.mesh.disk import flatten
from geoinv_core.mesh.membrane import Membrane
from geoinv_core.mesh.raster import depth_map, project_points, rasterise
from geoinv_core.mesh.surface import Surface, extract
from geoinv_core.mesh.topology import face_normals, vertex_normals
from geoinv_core.mesh.visibility import Sight
from geoinv_core.progress import Progress
from tests.core import lattice


def head_values(p: np.ndarray) -> np.ndarray:
    skull = np.linalg.norm((p - np.float32([0, 0.08, 0])) / np.float32([0.8, 1.05, 0.95]), axis=-1) - 0.33
    neck = np.maximum(np.hypot(p[:, 0], p[:, 2] + 0.05) - 0.13, p[:, 1])
    nose = np.linalg.norm(p - np.float32([0, 0.05, 0.31]), axis=-1) - 0.05
    return np.minimum(np.minimum(skull, neck), nose).astype(np.float32)


def true_colour(p: np.ndarray) -> np.ndarray:
    """Skin with fine stripes and a dark cap of hair."""
    stripes = 0.06 * np.sin(90 * p[:, :1]) * np.sin(80 * p[:, 1:2])
    hair = 1 / (1 + np.exp(-60 * (p[:, 1:2] - 0.25)))
    skin = np.array([0.75, 0.55, 0.45]) + stripes
    return (skin * (1 - hair) + np.array([0.15, 0.1, 0.08]) * hair).astype(np.float32)


def field_colour(p: np.ndarray) -> np.ndarray:
    """What a blurry, slightly wrong generator says."""
    hair = 1 / (1 + np.exp(-30 * (p[:, 1:2] - 0.25)))
    skin = np.array([0.65, 0.55, 0.5])
    return (skin * (1 - hair) + np.array([0.2, 0.12, 0.1]) * hair + np.zeros((len(p), 1))).astype(np.float32)


@cache
def head() -> tuple[Surface, np.ndarray]:
    surface = extract(lattice.dense(head_values, 81, 1.0), neck_y=-0.38, target_faces=6000)
    return surface, unwrap(surface.vertices, surface.faces, 512)


def picture_of(
    surface: Surface, camera: np.ndarray, size: int, background: tuple[int, int, int]
) -> np.ndarray:
    position, distance = project_points(camera, surface.vertices)
    covered = rasterise((position * size)[surface.faces], size, distance[surface.faces])
    flat = np.tile(np.array(background, np.uint8), (size * size, 1))
    points = covered.interpolate(surface.vertices, surface.faces)
    flat[covered.pixel] = np.rint(true_colour(points) * 255)
    return flat.reshape(size, size, 3)


def texels(size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    surface, uv = head()
    cover = texel_map(uv, size)
    normals = cover.interpolate(vertex_normals(surface.vertices, surface.faces), surface.faces)
    return cover.interpolate(surface.vertices, surface.faces), normals / np.linalg.norm(normals, axis=1)[
        :, None
    ]


def blended(
    photo: np.ndarray, camera: np.ndarray, mask: np.ndarray | None = None, lit: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, Blended]:
    """Texels' points and normals, and the photo blended into `field_colour` there."""
    surface, uv = head()
    vertices, faces = surface.vertices, surface.faces
    albedo = field_colour(vertices)
    ground = Ground(
        vertices, faces, vertex_normals(vertices, faces), albedo, lit, Membrane(vertices, faces, albedo)
    )
    points, normals = texels()
    sight = Sight(camera, depth_map(vertices, faces, camera, 256), mask)
    found = blend_photo(ground, texel_map(uv, 512), points, field_colour(points), photo, sight)
    return points, normals, found


def cosine_to(camera: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    away = camera[[3, 7, 11]] - points
    return np.einsum("ij,ij->i", away / np.linalg.norm(away, axis=1, keepdims=True), normals)


def test_a_head_is_one_island_with_its_seam_behind() -> None:
    surface, _ = head()
    uv = flatten(surface.vertices, surface.faces)
    assert uv is not None
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    assert (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).min() > 0, "no face is turned over"
    # an edge whose two faces disagree about its UVs is a seam: all of them lie behind
    corner = {}
    seam = []
    for face, places in zip(surface.faces.tolist(), uv.tolist(), strict=True):
        for i in range(3):
            j = (i + 1) % 3
            other = corner.setdefault((face[j], face[i]), None)
            if other is not None and other != (places[j], places[i]):
                seam.append(face[i])
            corner[face[i], face[j]] = (places[i], places[j])
    where = surface.vertices[seam]
    assert len(where) > 10
    assert where[:, 2].max() < 0.1
    assert np.abs(where[:, 0]).max() < 0.05
    middle = uv.mean((0, 1))
    nose = uv[surface.vertices[surface.faces].mean(1)[:, 2].argmax()].mean(0)
    assert abs(nose[0] - middle[0]) < 0.1, "the face is in the middle, upright"
    chin = uv[np.abs(surface.vertices[surface.faces].mean(1) - [0, -0.2, 0.2]).sum(1).argmin()].mean(0)
    assert chin[1] < nose[1]


def test_what_is_no_disk_gets_charts() -> None:
    ball = extract(lattice.dense(lambda p: np.linalg.norm(p, axis=1) - 0.3, 32, 1.0), target_faces=1200)

    def ring(p: np.ndarray) -> np.ndarray:
        return np.hypot(np.hypot(p[:, 0], p[:, 2]) - 0.3, p[:, 1]) - 0.1

    torus = extract(lattice.dense(ring, 32, 1.0), target_faces=1200)
    for surface in (ball, torus):
        assert flatten(surface.vertices, surface.faces) is None
        uv = unwrap(surface.vertices, surface.faces, 256)
        a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
        area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2
        assert len(texel_map(uv, 512).pixel) / 512**2 == pytest.approx(area, rel=0.02)


def test_atlas_covers_every_face_once() -> None:
    surface, uv = head()
    assert uv.shape == (len(surface.faces), 3, 2)
    assert uv.min() >= 0
    assert uv.max() <= 1
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    assert (area > 0).mean() > 0.999
    assert area.sum() > 0.4, "the atlas wastes the texture"
    size = 1024
    covered = texel_map(uv, size)
    # without overlap the covered pixels are as many as the area says
    assert len(covered.pixel) / size**2 == pytest.approx(area.sum(), rel=0.01)
    world = np.linalg.norm(face_normals(surface.vertices, surface.faces), axis=1) / 2
    stretch = np.sqrt(area / area.sum() / (world / world.sum()))
    assert np.quantile(stretch, 0.01) > 0.35
    assert np.quantile(stretch, 0.99) < 2.5


def test_depth_map_is_the_distance_along_the_ray() -> None:
    surface, _ = head()
    camera = orbit(25, 10).numpy()
    depth = depth_map(surface.vertices, surface.faces, camera, 64)
    assert np.isinf(depth[0, 0])
    hit = np.isfinite(depth)
    from geoinv_core.camera import rays

    origins, directions = (t[0].numpy().reshape(64, 64, 3) for t in rays(orbit(25, 10)[None], 64))
    points = (origins + directions * np.where(hit, depth, 0)[..., None])[hit]
    assert np.quantile(np.abs(head_values(points)), 0.98) < 4e-3


def test_baked_texture_shows_the_fields_colours_and_pads() -> None:
    surface, uv = head()
    seen: list[Progress] = []
    texture = bake(surface.vertices, surface.faces, uv, true_colour, 512, on_progress=seen.append).albedo
    assert texture.shape == (512, 512, 3)
    assert texture.dtype == np.uint8
    corners = surface.vertices[surface.faces].mean(1)
    middle = uv.mean(1)
    column, row = (middle[:, 0] * 512).astype(int), ((1 - middle[:, 1]) * 512).astype(int)
    error = np.abs(texture[row, column] / 255.0 - true_colour(corners))
    assert np.quantile(error, 0.95) < 0.03
    assert [p.fraction for p in seen] == sorted(p.fraction for p in seen)
    # a border of eight texels round every chart is a copy of the chart's edge, nothing is left black
    covered = np.zeros(512 * 512, bool)
    covered[texel_map(uv, 512).pixel] = True
    assert not covered.all()
    assert texture.reshape(-1, 3)[~covered].min() > 5


def test_regions_and_given_partners() -> None:
    surface, uv = head()
    camera = orbit(0, 0).numpy()
    view = PhotoView(picture_of(surface, camera, 256, (0, 0, 0)), camera)
    left = surface.vertices[:, 0] > 0
    # partners on the other half; one vertex stands for all, so its colour is all that can be mirrored
    nose = int(np.argmax(surface.vertices[:, 2]))
    partner = np.full(len(surface.vertices), nose, np.int32)
    baked = bake(
        surface.vertices, surface.faces, uv, field_colour, 256, view, partner=partner, regions={"left": left}
    )
    assert set(baked.masks) == {"mask_photo", "mask_mirrored", "mask_left"}
    cover = texel_map(uv, 256)
    x = cover.interpolate(surface.vertices, surface.faces)[:, 0]
    marked = baked.masks["mask_left"].ravel()[cover.pixel]
    assert marked[x > 0.06].min() == 255
    assert marked[x < -0.06].max() == 0
    photo, mirrored = (baked.masks[f"mask_{name}"].astype(int) for name in ("photo", "mirrored"))
    assert (photo + mirrored).max() <= 256
    assert mirrored.max() > 200, "every vertex has the nose's tip as its partner, which the photo sees"


def test_the_mouths_inside_is_dark_and_of_no_source() -> None:
    surface, uv = head()
    camera = orbit(0, 0).numpy()
    view = PhotoView(picture_of(surface, camera, 256, (0, 0, 0)), camera)
    mouth = (
        np.linalg.norm(surface.vertices - surface.vertices[np.argmax(surface.vertices[:, 2])], axis=1) < 0.05
    )
    before, after = (
        bake(surface.vertices, surface.faces, uv, field_colour, 256, view, mouth=m) for m in (None, mouth)
    )
    cover = texel_map(uv, 256)
    share = cover.interpolate(mouth[:, None], surface.faces)[:, 0]
    inside, outside = cover.pixel[share > 0.999], cover.pixel[share == 0]
    colour = after.albedo.reshape(-1, 3)[inside].astype(int)
    assert (colour[:, 0] > 2 * colour[:, 1]).all()
    assert colour.max() < 80
    assert before.masks["mask_photo"].ravel()[inside].max() > 200
    assert after.masks["mask_photo"].ravel()[inside].max() == 0
    assert np.array_equal(after.albedo.reshape(-1, 3)[outside], before.albedo.reshape(-1, 3)[outside])


@pytest.mark.parametrize("size", [0, -1, 63, 20000])
def test_impossible_sizes(size: int) -> None:
    surface, uv = head()
    with pytest.raises(GeoInvError, match="between 64 and 8192"):
        bake(surface.vertices, surface.faces, uv, true_colour, size)


def test_colours_that_are_not_finite() -> None:
    surface, uv = head()
    with pytest.raises(GeoInvError, match="not finite"):
        bake(surface.vertices, surface.faces, uv, lambda p: p * np.nan, 64)


def test_cancel() -> None:
    surface, uv = head()

    def stop(_: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        bake(surface.vertices, surface.faces, uv, true_colour, 64, on_progress=stop)


@pytest.mark.parametrize("yaw", [0.0, 35.0])
def test_photo_gives_its_detail_where_it_sees(yaw: float) -> None:
    surface, _ = head()
    camera = orbit(yaw, 5).numpy()
    photo = picture_of(surface, camera, 512, (255, 0, 255))
    points, normals, result = blended(photo, camera)
    field = field_colour(points)
    truth = true_colour(points)
    cosine = cosine_to(camera, points, normals)
    front = (cosine > 0.85) & (points[:, 1] > -0.3)
    assert np.quantile(np.abs(result.colour - truth)[front], 0.95) < 0.03
    assert (result.photo[front] > 0.8).mean() > 0.85
    # what the camera cannot see takes nothing from the photo ...
    hidden = cosine < 0.1
    assert result.photo[hidden].max() < 0.02
    # ... but is drawn towards the photo's tone near what it sees, and no background gets in anywhere
    skin = hidden & (points[:, 1] < 0.15) & (cosine > -0.3)
    before = np.abs(field[skin] - truth[skin]).mean()
    assert np.abs(result.colour[skin] - truth[skin]).mean() < 0.75 * before
    magenta = np.minimum(result.colour[:, 0], result.colour[:, 2]) - result.colour[:, 1]
    assert magenta.max() < 0.12


def test_the_hidden_half_takes_the_mirrored_half() -> None:
    surface, _ = head()
    camera = orbit(40, 5).numpy()
    photo = picture_of(surface, camera, 512, (255, 0, 255))
    points, normals, result = blended(photo, camera)
    seen_from_the_other_side = cosine_to(camera, points * [-1, 1, 1], normals * [-1, 1, 1]) > 0.7
    half = seen_from_the_other_side & (cosine_to(camera, points, normals) < 0.1) & (points[:, 1] > -0.3)
    assert half.sum() > 2000
    assert result.mirrored[half].mean() > 0.6
    # the stripes are symmetric, so they come out right where no pixel shows them
    truth = true_colour(points * np.float32([-1, 1, 1]))
    field = field_colour(points)
    assert np.abs(result.colour - truth)[half].mean() < 0.5 * np.abs(field - truth)[half].mean()


def test_halves_that_differ_are_not_mirrored() -> None:
    """One half of the photo is painted: where both halves are seen they disagree."""
    surface, _ = head()
    camera = orbit(8, 0).numpy()
    position, _ = project_points(camera, surface.vertices[np.abs(surface.vertices[:, 0]) < 0.01])
    photo = picture_of(surface, camera, 512, (255, 0, 255))
    photo[:, int(position[:, 0].mean() * 512) :] = (105, 175, 95)
    _, _, result = blended(photo, camera)
    assert result.mirrored.max() < 0.1
    _, _, symmetric = blended(picture_of(surface, camera, 512, (255, 0, 255)), camera)
    assert symmetric.mirrored.max() > 0.8


def test_what_lies_behind_the_nose_is_not_painted_with_the_nose() -> None:
    surface, _ = head()
    camera = orbit(60, 0).numpy()
    photo = picture_of(surface, camera, 512, (90, 200, 90))
    points, _, result = blended(photo, camera)
    position, distance = project_points(camera, points)
    depth = depth_map(surface.vertices, surface.faces, camera, 256)
    index = np.clip((position * 256).astype(int), 0, 255)
    occluded = distance > depth[index[:, 1], index[:, 0]] + 0.06
    assert occluded.sum() > 100
    assert result.photo[occluded].max() < 0.05


def test_an_outline_that_is_too_large_keeps_the_background_out() -> None:
    """The field's head is 6 % larger than the photo's: at the rim the photo shows background."""
    surface, _ = head()
    camera = orbit(0, 0).numpy()
    smaller = Surface(surface.vertices * np.float32(0.94), surface.faces)
    photo = picture_of(smaller, camera, 512, (20, 255, 20))
    _, _, result = blended(photo, camera)
    green = result.colour[:, 1] - result.colour[:, [0, 2]].max(1)
    assert (green > 0.1).mean() < 2e-3
    assert (result.photo > 0.9).mean() > 0.11, "the face itself still comes from the photo"


def test_something_in_front_of_the_face_is_left_out() -> None:
    surface, _ = head()
    camera = orbit(0, 0).numpy()
    photo = picture_of(surface, camera, 512, (0, 0, 0))
    photo[230:290, 200:330] = (20, 60, 250)
    points, _, result = blended(photo, camera)
    position, _ = project_points(camera, points)
    behind = ((position > [0.42, 0.47]) & (position < [0.62, 0.54])).all(1) & (points[:, 2] > 0.2)
    assert behind.sum() > 500
    assert result.photo[behind].max() < 0.05
    assert np.abs(result.colour - true_colour(points))[behind].mean() < 0.1


def test_the_mask_is_kept() -> None:
    surface, _ = head()
    camera = orbit(0, 0).numpy()
    photo = picture_of(surface, camera, 256, (0, 0, 0))
    mask = np.zeros((256, 256), np.float32)
    mask[:, 128:] = 1
    points, _, half = blended(photo, camera, mask)
    assert half.photo[points[:, 0] < -0.02].max() < 0.02
    assert half.photo[(points[:, 0] > 0.1) & (points[:, 2] > 0.2)].mean() > 0.8
    _, _, none = blended(photo, camera, np.zeros((256, 256), bool))
    np.testing.assert_allclose(none.colour, field_colour(points), atol=1e-6)


def test_the_photos_light_is_taken_out() -> None:
    surface, _ = head()
    camera = orbit(0, 0).numpy()
    normals = vertex_normals(surface.vertices, surface.faces)
    strength = (0.75 + 0.45 * normals @ np.array([0.6, 0.5, 0.62]))[:, None] * np.array([1.05, 1.0, 0.9])

    def lit(colour: np.ndarray) -> np.ndarray:
        return to_srgb(to_linear(colour) * strength)

    position, distance = project_points(camera, surface.vertices)
    covered = rasterise((position * 512)[surface.faces], 512, distance[surface.faces])
    flat = np.zeros((512 * 512, 3), np.uint8)
    flat[covered.pixel] = np.rint(
        covered.interpolate(lit(true_colour(surface.vertices)), surface.faces) * 255
    )
    # the model has the light's kind, but too weak
    model = to_srgb(to_linear(field_colour(surface.vertices)) * np.sqrt(strength))
    points, normals_at, result = blended(flat.reshape(512, 512, 3), camera, lit=model)
    sure = result.photo > 0.9
    error = np.abs(result.colour - true_colour(points))[sure]
    strength_at = 0.75 + 0.45 * normals_at[sure] @ np.array([0.6, 0.5, 0.62])
    assert strength_at.max() > 1.7 * strength_at.min(), "the light matters"
    assert np.median(error) < 0.05
    skin = sure & (points[:, 1] < 0.15)
    dark, bright = (skin & (points[:, 0] * side > 0.12) for side in (-1, 1))
    left, right = (np.median(result.colour[half], axis=0) for half in (dark, bright))
    assert np.abs(left - right).max() < 0.04, "no bright and no dark side remains"


def test_where_the_mesh_leaves_the_surface_colours_are_continued() -> None:
    surface, uv = head()
    vertices = surface.vertices.copy()
    inner = np.linalg.norm(vertices - [0, -0.1, 0.28], axis=1) < 0.05
    vertices[inner, 2] -= 0.06

    def colour(p: np.ndarray) -> np.ndarray:
        wrong = np.abs(head_values(p))[:, None] > 0.02
        return np.where(wrong, np.float32([0, 1, 0]), field_colour(p)).astype(np.float32)

    photo = picture_of(surface, orbit(180).numpy(), 128, (0, 0, 0))
    view = PhotoView(photo, orbit(180).numpy())
    plain = bake(vertices, surface.faces, uv, colour, 256, view).albedo
    filled = bake(vertices, surface.faces, uv, colour, 256, view, head_values)
    assert ((plain[..., 1] > 200) & (plain[..., 0] < 100)).any()
    assert not ((filled.albedo[..., 1] > 200) & (filled.albedo[..., 0] < 100)).any()
    assert filled.masks["mask_inpainted"].max() == 255
    assert 0.001 < (filled.masks["mask_inpainted"] > 128).mean() < 0.1
