"""The sheet: rows of labelled square pictures, a wide picture below, a line of small print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE, GAP, MARGIN, TITLE, CAPTION = 216, 14, 28, 84, 30
GROUND, CARD, INK, DIM = (20, 22, 27), (32, 35, 42), (236, 238, 242), (150, 156, 168)
ACCENT = (240, 150, 80)

Picture = Image.Image


@dataclass(frozen=True)
class Row:
    """One head: a name and its pictures, (caption, picture) each, drawn from left to right."""

    name: str
    tiles: Sequence[tuple[str, Picture]]


def draw_sheet(
    title: str, subtitle: str, rows: Sequence[Row], wide: Picture, wide_caption: str, notes: str
) -> Picture:
    """RGB picture. `wide` is fitted to the width of the longest row; `notes` is wrapped at the bottom."""
    columns = max(len(row.tiles) for row in rows)
    inner = columns * TILE + (columns - 1) * GAP
    row_height = CAPTION + TILE + CAPTION + GAP
    scene = card_of(wide, (inner, round(wide.height * inner / wide.width)))
    lines = wrapped(notes, inner, font(15))
    height = TITLE + len(rows) * row_height + scene.height + CAPTION + GAP + len(lines) * 22 + 2 * MARGIN
    sheet = Image.new("RGB", (inner + 2 * MARGIN, height), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 4), title, INK, font(34))
    pen.text((MARGIN, MARGIN + 38), subtitle, DIM, font(17))
    y = MARGIN + TITLE
    for row in rows:
        pen.text((MARGIN, y), row.name, ACCENT, font(18))
        y += CAPTION
        for i, (caption, picture) in enumerate(row.tiles):
            x = MARGIN + i * (TILE + GAP)
            sheet.paste(card_of(picture, (TILE, TILE)), (x, y))
            pen.text((x + TILE / 2, y + TILE + 6), caption, INK, font(15), anchor="ma")
        y += TILE + CAPTION + GAP
    pen.text((MARGIN, y - 6), wide_caption, ACCENT, font(18))
    y += CAPTION - 6
    sheet.paste(scene, (MARGIN, y))
    y += scene.height + GAP
    for line in lines:
        pen.text((MARGIN, y), line, DIM, font(15))
        y += 22
    return sheet


def card_of(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture on a card of this size, whole, not stretched; transparent parts show the card."""
    fitted = ImageOps.contain(picture.convert("RGBA"), size, Image.Resampling.LANCZOS)
    card = Image.new("RGB", size, CARD)
    card.paste(fitted, ((size[0] - fitted.width) // 2, (size[1] - fitted.height) // 2), fitted)
    return card


def wrapped(text: str, width: int, face: ImageFont.FreeTypeFont) -> list[str]:
    """The text's lines, each at most `width` pixels wide."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and face.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that Pillow carries; no system font is needed."""
    face = ImageFont.load_default(size)
    if not isinstance(face, ImageFont.FreeTypeFont):
        raise RuntimeError("This Pillow has no FreeType: install Pillow's own wheel.")
    return face
