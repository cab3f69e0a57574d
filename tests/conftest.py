"""Fixtures shared by all tests; nothing here imports torch before a test asks for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def assets() -> Any:
    """The CC0 head data, from GEOINV_HEADS or a `shared/heads` folder beside the checkout."""
    folder = Path(os.environ.get("GEOINV_HEADS", CHECKOUT.parent / "shared" / "heads"))
    if not (folder / "heads.npz").is_file():
        pytest.skip("the head data is not at hand: set GEOINV_HEADS to its folder")
    from geoinv_core.heads import HeadAssets

    return HeadAssets.open(folder)
