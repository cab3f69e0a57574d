"""A HeadMesh as binary glTF 2.0 (.glb): one mesh, its pictures embedded as PNG, named morph targets.

Format: Khronos glTF 2.0 specification. Axes: metres, Y up, the face towards +Z.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from geoinv_core.mesh.bundle import encode_png
from geoinv_core.mesh.head_mesh import HeadMesh
from geoinv_core.mesh.tangents import across, tangent_frames
from geoinv_core.mesh.topology import vertex_normals

_FLOAT, _UINT = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963


def encode_glb(mesh: HeadMesh, name: str = "head") -> bytes:
    """The bytes of a .glb file. Vertices are doubled along UV seams, as the format needs; quads are split."""
    faces, uv = mesh.triangles()
    split, corners, texcoord, source = _split_at_seams(faces, uv)
    normals = _y_up(vertex_normals(mesh.vertices, faces))[split]
    buffer = _Buffer()
    attributes = {
        "POSITION": buffer.vectors(_y_up(mesh.vertices)[split], bounds=True),
        "NORMAL": buffer.vectors(normals),
        "TEXCOORD_0": buffer.vectors(texcoord),
    }
    primitive: dict[str, Any] = {
        "attributes": attributes,
        "indices": buffer.indices(corners),
        "material": 0,
        "mode": 4,
    }
    node: dict[str, Any] = {"mesh": 0, "name": name}
    body: dict[str, Any] = {"name": name, "primitives": [primitive]}
    if mesh.shapes:
        primitive["targets"] = [
            {"POSITION": buffer.offsets(_y_up(delta.astype(np.float32))[split])}
            for delta in mesh.shapes.values()
        ]
        body["weights"] = [0.0] * len(mesh.shapes)
        # not in the core specification, but read by every viewer that shows names
        body["extras"] = {"targetNames": list(mesh.shapes)}
    pictures = {"albedo": mesh.albedo}
    material: dict[str, Any] = {
        "name": "skin",
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0},
            "metallicFactor": 0.0,
            "roughnessFactor": 0.6,
        },
    }
    if "normal" in mesh.maps:
        pictures["normal"] = mesh.maps["normal"]
        tangents, hands = tangent_frames(_y_up(mesh.vertices), faces, uv)
        tangents = across(tangents.reshape(-1, 3)[source], normals)
        attributes["TANGENT"] = buffer.vectors(np.column_stack([tangents, hands[source // 3]]))
        material["normalTexture"] = {"index": 1}
    images = [
        {
            "name": name,
            "bufferView": buffer.view(encode_png(Image.fromarray(picture))),
            "mimeType": "image/png",
        }
        for name, picture in pictures.items()
    ]
    document = {
        "asset": {"version": "2.0", "generator": "GeoInv"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [node],
        "meshes": [body],
        "materials": [material],
        "textures": [{"sampler": 0, "source": source} for source in range(len(images))],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": images,
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    chunks += struct.pack("<II", len(buffer.data), 0x004E4942) + bytes(buffer.data)
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks


def _y_up(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Blender's (x, y, z) to glTF's (x, z, -y)."""
    return np.stack([vectors[:, 0], vectors[:, 2], -vectors[:, 1]], 1)


def _split_at_seams(
    faces: npt.NDArray[np.int32], uv: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """One glTF vertex per pair of vertex and UV.

    Returns: source vertex int64 [N], triangles uint32 [F, 3], texture coordinates float32 [N, 2] with the
    origin at the upper left as glTF has it; one corner int64 [N] that each is made of, of 3 F.
    """
    vertex = faces.reshape(-1).astype(np.int64)
    # UVs as exact bit patterns, so that equal means equal
    bits = np.ascontiguousarray(uv.reshape(-1, 2) + np.float32(0.0)).view(np.int32).astype(np.int64)
    order = np.lexsort((bits[:, 1], bits[:, 0], vertex))
    keys = np.column_stack([vertex, bits])[order]
    first = np.concatenate([[True], (keys[1:] != keys[:-1]).any(1)])
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(first) - 1
    chosen = order[first]
    texcoord = uv.reshape(-1, 2)[chosen] * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)
    return vertex[chosen], number.reshape(-1, 3).astype(np.uint32), texcoord, chosen


class _Buffer:
    """The binary chunk with its views and accessors."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes, four-byte aligned; returns the view's number."""
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self.data += data + b"\0" * (-len(data) % 4)
        self.views.append(view)
        return len(self.views) - 1

    def vectors(self, values: npt.NDArray[np.float32], bounds: bool = False) -> int:
        """Accessor of float32 [N, 2 to 4]."""
        values = np.ascontiguousarray(values, "<f4")
        accessor: dict[str, Any] = {
            "bufferView": self.view(values.tobytes(), _ARRAY_BUFFER),
            "componentType": _FLOAT,
            "count": len(values),
            "type": f"VEC{values.shape[1]}",
        }
        if bounds:
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        return self._add(accessor)

    def offsets(self, values: npt.NDArray[np.float32]) -> int:
        """Accessor of morph offsets float32 [N, 3], sparse where that is smaller."""
        values = np.ascontiguousarray(values, "<f4")
        moved = np.flatnonzero((values != 0).any(1)).astype("<u4")
        if len(moved) == 0 or len(moved) * 16 > len(values) * 12:
            return self.vectors(values, bounds=True)
        return self._add(
            {
                "componentType": _FLOAT,
                "count": len(values),
                "type": "VEC3",
                "min": values.min(0).tolist(),
                "max": values.max(0).tolist(),
                "sparse": {
                    "count": len(moved),
                    "indices": {"bufferView": self.view(moved.tobytes()), "componentType": _UINT},
                    "values": {"bufferView": self.view(values[moved].tobytes())},
                },
            }
        )

    def indices(self, triangles: npt.NDArray[np.uint32]) -> int:
        """Accessor of triangles uint32 [F, 3]."""
        data = np.ascontiguousarray(triangles, "<u4").tobytes()
        return self._add(
            {
                "bufferView": self.view(data, _ELEMENT_BUFFER),
                "componentType": _UINT,
                "count": triangles.size,
                "type": "SCALAR",
            }
        )

    def _add(self, accessor: dict[str, Any]) -> int:
        self.accessors.append(accessor)
        return len(self.accessors) - 1
