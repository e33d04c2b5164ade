"""One registry for what is built in and for plug-ins, tried with throwaway distributions on a path of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.ground.errors import BadInput
from luthier.ground.registry import Registry

Shout = Callable[[str], str]
GROUP = "luthier.test_shouts"


def make_registry() -> Registry[Shout]:
    registry: Registry[Shout] = Registry(
        group=GROUP, kind="shout", missing=lambda entry: None if callable(entry) else "it is not a function"
    )

    @registry.register("loud")
    def loud(text: str) -> str:
        return text.upper()

    registry.register("quiet")(str.lower)
    return registry


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a distribution of one module with one entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(dist: str, name: str, source: str, target: str = "shout") -> Path:
        module = dist.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {module}:{target}\n", encoding="utf-8")
        monkeypatch.delitem(sys.modules, module, raising=False)
        return tmp_path / f"{module}.py"

    return make


def test_built_in_entries_are_found_and_listed() -> None:
    registry = make_registry()
    assert registry.get("loud")("a") == "A"
    assert registry.names() == ["loud", "quiet"]


def test_the_decorator_hands_the_object_back() -> None:
    registry = make_registry()

    def twice(text: str) -> str:
        return text + text

    assert registry.register("twice")(twice) is twice


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(BadInput) as caught:
        make_registry().get("lound")
    message = str(caught.value)
    assert 'no shout called "lound" (did you mean "loud"?)' in message
    assert message.endswith("choose one of loud, quiet.")


def test_an_empty_registry_has_no_advice_to_give() -> None:
    with pytest.raises(BadInput, match='no shout called "x"') as caught:
        Registry[Shout](group=GROUP, kind="shout").get("x")
    assert "choose one of" not in str(caught.value)


def test_one_name_is_not_registered_twice_but_a_cell_may_be_run_again() -> None:
    registry = make_registry()
    with pytest.raises(BadInput, match='"loud" is registered twice'):
        registry.register("loud")(str.title)

    def cell() -> Shout:
        @registry.register("again")
        def again(text: str) -> str:
            return text

        return again

    cell()
    second = cell()
    assert registry.get("again") is second


def test_modules_are_imported_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "late_shouts.py").write_text("loaded = True\n", encoding="utf-8")
    registry: Registry[Shout] = Registry(group=GROUP, kind="shout", modules=("late_shouts",))
    assert "late_shouts" not in sys.modules
    assert registry.names() == []
    assert sys.modules.pop("late_shouts").loaded


def test_a_plug_in_is_found_listed_and_imported_only_when_named(install: Callable[..., Path]) -> None:
    install("my-shouts", "whisper", "def shout(text):\n    return text.lower()\n")
    registry = make_registry()
    assert registry.get("loud")("a") == "A"
    assert registry.names() == ["loud", "quiet", "whisper"]
    assert "my_shouts" not in sys.modules
    assert registry.get("whisper")("A") == "a"
    assert registry.get("whisper") is registry.get("whisper")
    with pytest.raises(BadInput, match='did you mean "whisper"'):
        registry.get("whispr")


def test_a_plug_in_cannot_take_a_built_in_name(install: Callable[..., Path]) -> None:
    install("my-shouts", "loud", "def shout(text):\n    return 'mine'\n")
    registry = make_registry()
    assert registry.get("loud")("a") == "A"
    with pytest.raises(BadInput, match=r'"loud" of the plug-in my-shouts 1\.2 has the name of a built-in one'):
        registry.names()


def test_two_plug_ins_cannot_share_a_name(install: Callable[..., Path]) -> None:
    install("first-shouts", "hum", "def shout(text):\n    return text\n")
    install("second-shouts", "hum", "def shout(text):\n    return text\n")
    with pytest.raises(BadInput, match=r'the shout "hum" of the plug-in .* has the name of the plug-in'):
        make_registry().get("hum")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_that_is_not_there\n", "ModuleNotFoundError: No module named"),
        ("def broken(:\n", "SyntaxError"),
        ("other = 1\n", "AttributeError"),
        ("raise RuntimeError('first\\nsecond')\n", "RuntimeError: first second"),
        ("shout = 3\n", "it is not a function"),
    ],
)
def test_a_broken_plug_in_gets_one_sentence(install: Callable[..., Path], source: str, reason: str) -> None:
    install("bad-shouts", "bad", source)
    registry = make_registry()
    assert "bad" in registry.names()
    with pytest.raises(BadInput) as caught:
        registry.get("bad")
    message = str(caught.value)
    assert message.startswith('the shout "bad" of the plug-in bad-shouts 1.2 cannot be used: ')
    assert reason in message and "\n" not in message
    assert message.endswith("mend or uninstall the plug-in.")
