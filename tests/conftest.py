"""Shared fixtures: the real model when its wheel is at hand, the real data sets when the folder is there."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real data sets beside the project, or a skip with the reason."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder of real data sets (../shared/data) is not here")
    return SHARED_DATA
