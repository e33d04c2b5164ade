"""The house itself: files stay readable, the changelog and the version agree, and docs name rooms that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import luthier

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "luthier").rglob("*.py"))


def test_no_file_grows_past_about_400_lines() -> None:
    assert {path.name: lines for path in SOURCES if (lines := len(path.read_text().splitlines())) > 400} == {}


def test_every_module_says_what_it_does() -> None:
    assert [str(path) for path in SOURCES if not path.read_text().lstrip().startswith('"""')] == []


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == luthier.__version__
    assert f"## {luthier.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_architecture_page_names_the_rooms_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"^\| \d \| `(\w+)/`", page, re.MULTILINE))
    there = {path.name for path in (ROOT / "src" / "luthier").iterdir() if (path / "__init__.py").exists()}
    assert named == there


def test_every_public_name_of_the_package_is_there() -> None:
    assert all(getattr(luthier, name) is not None for name in luthier.__all__)


def test_no_pickle_and_no_remote_code_anywhere() -> None:
    text = "\n".join(path.read_text() for path in SOURCES)
    assert re.search(r"^\s*(import|from) (pickle|dill|joblib|shelve)\b", text, re.MULTILINE) is None
    assert "torch.load(" not in text and "allow_pickle=True" not in text
    assert "trust_remote_code=True" not in text
