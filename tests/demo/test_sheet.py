"""The demo's sheet: sizes, whole pictures, wrapped notes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tests.demo.sheet import CARD, GAP, MARGIN, TILE, Row, card_of, draw_sheet, font, wrapped


def test_sheet_is_as_wide_as_its_longest_row() -> None:
    red = Image.new("RGB", (50, 80), (255, 0, 0))
    rows = [Row("one", [("a", red)] * 3), Row("two", [("b", red)])]
    sheet = draw_sheet("T", "S", rows, Image.new("RGBA", (300, 100)), "scene", "note " * 100)
    assert sheet.width == 3 * TILE + 2 * GAP + 2 * MARGIN
    pixels = np.asarray(sheet)
    reds = (pixels == (255, 0, 0)).all(-1)
    assert abs(reds.sum() / (4 * TILE * TILE * 50 / 80) - 1) < 0.05  # four whole pictures of that shape


def test_card_shows_the_whole_picture_and_fills_transparency() -> None:
    card = card_of(Image.new("RGBA", (100, 50), (0, 255, 0, 0)), (60, 60))
    assert card.size == (60, 60)
    assert card.getpixel((30, 30)) == CARD
    card = card_of(Image.new("RGB", (100, 50), (0, 255, 0)), (60, 60))
    assert card.getpixel((1, 30)) == (0, 255, 0)
    assert card.getpixel((30, 5)) == CARD


def test_notes_are_wrapped_between_words() -> None:
    text = "some words that go on " * 10
    lines = wrapped(text + "\nnew paragraph", 300, font(15))
    assert all(font(15).getlength(line) <= 300 for line in lines)
    assert " ".join(lines[:-1]).split() == text.split()
    assert lines[-1] == "new paragraph"
