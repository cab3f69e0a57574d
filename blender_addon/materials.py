"""The head's material: a Principled BSDF with the packed albedo and, where there is one, the normal map."""

from __future__ import annotations

from pathlib import Path

import bpy

from .errors import Trouble

# Skin without make-up under a neutral light; the artist changes it, the texture holds no highlights.
ROUGHNESS = 0.55
SPECULAR = 0.35


def load_picture(path: Path, name: str, space: str = "sRGB") -> bpy.types.Image:
    """The picture, packed into the .blend, in a colour space. Trouble when Blender cannot decode it."""
    image = bpy.data.images.load(str(path))
    if not image.has_data and 0 in image.size:
        bpy.data.images.remove(image)
        raise Trouble(
            f"The head in {path.parent.name} is damaged ({path.name}: its content is broken): "
            "create it again from its photo.",
            code="bundle",
        )
    image.name = name
    image.colorspace_settings.name = space
    image.pack()
    # Relative, so that unpacking puts it beside the .blend and no path of this computer is kept.
    image.filepath_raw = f"//textures/{bpy.path.clean_name(image.name)}.png"
    return image


def head_material(albedo: Path, normal: Path | None, name: str) -> bpy.types.Material:
    """A new material that shows the pictures on the object's active UV map."""
    picture = load_picture(albedo, f"{name} Albedo")
    try:
        relief = None if normal is None else load_picture(normal, f"{name} Normal", "Non-Color")
    except Trouble:
        bpy.data.images.remove(picture)
        raise
    material = bpy.data.materials.new(name)
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True  # always on, and deprecated, from 5.0
    tree = material.node_tree
    shader = next((node for node in tree.nodes if node.type == "BSDF_PRINCIPLED"), None)
    if shader is None:
        shader = tree.nodes.new("ShaderNodeBsdfPrincipled")
        output = tree.nodes.new("ShaderNodeOutputMaterial")
        output.location = (320, 0)
        tree.links.new(shader.outputs["BSDF"], output.inputs["Surface"])
    shader.inputs["Roughness"].default_value = ROUGHNESS
    shader.inputs["Specular IOR Level"].default_value = SPECULAR
    if relief is not None:
        bend = tree.nodes.new("ShaderNodeNormalMap")
        bend.location = (shader.location.x - 240, shader.location.y - 420)
        tree.links.new(bend.outputs["Normal"], shader.inputs["Normal"])
        node = _texture(tree, relief, bend.location.x - 320, bend.location.y)
        tree.links.new(node.outputs["Color"], bend.inputs["Color"])
    texture = _texture(tree, picture, shader.location.x - 320, shader.location.y)
    tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    tree.nodes.active = texture  # what the viewport's texture mode and texture paint take
    return material


def _texture(tree: bpy.types.NodeTree, image: bpy.types.Image, x: float, y: float) -> bpy.types.Node:
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    node.location = (x, y)
    return node
