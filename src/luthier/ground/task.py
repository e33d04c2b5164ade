"""Read a task file: strictly, with every fault at once, each with its place and the nearest valid key.

Relative paths in a task file are relative to the file. `--set a.b=c` overrides are applied before validation, so they
are held to the same rules. Does not look at models or rows.

    task = load_task(Path("examples/tickets/task.yaml"), ["train.epochs=1"])
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from luthier.ground.errors import BadInput, nearest
from luthier.ground.files import expanded
from luthier.ground.hashes import key_of, sha256_file
from luthier.ground.spec import TaskSpec

_MAX_BYTES = 1_000_000
_MAX_NODES = 20_000
_HELD_OUT = ("dev", "test", "general")
_OWN_WORDS = {
    "model_type": "a mapping of keys to values was wanted",
    "tuple_type": "a list was wanted",
    "string_pattern_mismatch": "this is not of the form wanted (the documentation of the key shows it)",
    "finite_number": "a finite number was wanted",
}
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Task:
    """A task file that has been read and found valid.

    Attributes:
        spec: what it says.
        path: the file.
        overrides: the `--set` values that were applied.
    """

    spec: TaskSpec
    path: Path
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from."""
        return self.path.parent

    def resolve(self, name: str) -> Path:
        """Return the path of a file that the task names."""
        return (self.folder / expanded(name)).resolve()

    @property
    def instruction(self) -> str:
        """The instruction's text; `file:PATH` has been read."""
        text = self.spec.instruction
        if text.startswith("file:"):
            text = _text_of(self.resolve(text.removeprefix("file:").strip()))
        return text.strip()

    @property
    def words(self) -> tuple[str, ...]:
        """The words that become tokens: those that the task lists, and those of its file, one on each line."""
        vocabulary = self.spec.train.vocabulary
        lines = "" if vocabulary.file is None else _text_of(self.resolve(vocabulary.file))
        return tuple(
            dict.fromkeys([*vocabulary.tokens, *(line.strip() for line in lines.splitlines() if line.strip())])
        )

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema of the answers, if the task names one."""
        if self.spec.schema_file is None:
            return None
        path = self.resolve(self.spec.schema_file)
        try:
            schema = json.loads(_text_of(path))
        except ValueError as error:
            raise BadInput(f"the schema is not JSON ({error})", where=str(path), fix="mend the file") from None
        if not isinstance(schema, dict):
            raise BadInput("the schema is not a JSON object", where=str(path), fix="write a JSON schema")
        return schema

    def key(self, *sections: str) -> str:
        """Return a hash of the named top-level sections of the spec and of the data files that they name."""
        values = self.spec.model_dump(mode="json", include=set(sections))
        files = {name: sha256_file(path) for name, path in self._files() if path.is_file()}
        return key_of({"spec": values, "files": files, "instruction": self.instruction})

    def _files(self) -> Iterator[tuple[str, Path]]:
        data = self.spec.data
        named = [*((f"train {source.source}", source.source) for source in data.sources)]
        named += [(name, source) for name in _HELD_OUT if (source := getattr(data, name))]
        for name, source in named:
            if not source.startswith("hub:"):
                yield name, self.resolve(source)
        if file := self.spec.train.vocabulary.file:
            yield "vocabulary", self.resolve(file)
        if self.spec.schema_file:
            yield "schema", self.resolve(self.spec.schema_file)


def load_task(path: str | Path, overrides: Sequence[str] = ()) -> Task:
    """Read, override and validate a task file.

    Args:
        path: the YAML file.
        overrides: `a.b=c` settings, applied in order; values are YAML.

    Raises:
        BadInput: the file cannot be read, or has faults; the sentence lists all of them with their places.
    """
    if isinstance(overrides, str):
        overrides = [overrides]
    path = expanded(path)
    values, lines = _read(path)
    places = dict(lines)
    for override in overrides:
        _apply(values, override, places)
    try:
        spec = TaskSpec.model_validate(values)
    except ValidationError as error:
        faults = [_sentence(fault, places, path) for fault in error.errors(include_url=False)]
        raise _faults(path, faults + list(_missing_files(values, places, path))) from None
    missing = list(_missing_files(values, places, path))
    if missing:
        raise _faults(path, missing)
    return Task(spec=spec, path=path.resolve(), overrides=tuple(overrides))


def train_values(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values of `train` that overrides such as `train.optimizer=adamw` set, without a task file.

    Raises:
        BadInput: one is of another form, sets another key, or `train` itself to what is no mapping.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        _apply(values, override, {})
    if others := [key for key in values if key != "train"]:
        raise BadInput(f'"{others[0]}" is of a task file, and none is named', fix="set keys of train alone")
    train = values.get("train", {})
    if not isinstance(train, dict):
        raise BadInput(f"train is a mapping of keys to values, not {train!r}", where="--set", fix="set train.KEY=VALUE")
    return dict(train)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of task files, for editors."""
    schema = TaskSpec.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Luthier task"}


# -- reading -------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any], dict[Place, int]]:
    if not path.exists():
        raise BadInput(
            "there is no such task file", where=str(path), fix="check the path, or begin with `luthier start FOLDER`"
        )
    if path.is_dir():
        raise BadInput(
            "this is a folder, and a task file was wanted",
            where=str(path),
            fix=f"name the file, such as {path / 'task.yaml'}",
        )
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadInput(
                f"a task file of more than {_MAX_BYTES:,} bytes is not read",
                where=str(path),
                fix="name data files instead of holding them",
            )
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise BadInput(
            f"the file is not YAML ({_problem(error)})", where=_marked(path, error), fix="mend the line"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"the file cannot be read ({error})", where=str(path), fix="check the file and its encoding (UTF-8)"
        ) from None
    if not isinstance(node, yaml.MappingNode):
        raise BadInput(
            "a task file is a mapping of keys to values", where=str(path), fix="write `name: …`, `model: …`, `data: …`"
        )
    lines: dict[Place, int] = {}
    faults: list[str] = []
    _walk(node, (), lines, faults, path)
    if faults:
        raise _faults(path, faults)
    try:
        values = yaml.SafeLoader("").construct_document(node)
    except yaml.YAMLError as error:
        problem = _problem(error)
        raise BadInput(
            f"a value cannot be read ({problem})", where=_marked(path, error), fix="write plain values"
        ) from None
    return dict(values), lines


def _walk(node: yaml.Node, place: Place, lines: dict[Place, int], faults: list[str], path: Path) -> None:
    lines[place] = node.start_mark.line + 1
    if len(lines) > _MAX_NODES:
        raise BadInput(
            f"the file holds more than {_MAX_NODES:,} values",
            where=str(path),
            fix="name data files instead of holding them",
        )
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if name in seen:
                faults.append(f"{path}:{line}: the key {_dotted((*place, name))} is given twice; keep one")
            seen.add(name)
            _walk(value, (*place, name), lines, faults, path)
            lines[(*place, name)] = line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*place, index), lines, faults, path)


def _apply(values: dict[str, Any], override: str, places: dict[Place, int]) -> None:
    key, separator, text = override.partition("=")
    names = tuple(part for part in key.strip().split("."))
    if not separator or not all(names):
        raise BadInput(
            f'"{override}" is not of the form key=value', where="--set", fix="write for example --set train.epochs=1"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    here = values
    for name in names[:-1]:
        inner = here.get(name)
        here[name] = dict(inner) if isinstance(inner, dict) else {}
        here = here[name]
    here[names[-1]] = value
    for place in [place for place in places if place[: len(names)] == names]:
        del places[place]
    places[names] = 0  # line 0 means: given by --set
    for length in range(1, len(names)):
        places.setdefault(names[:length], 0)


# -- sentences -----------------------------------------------------------------------------------------------------


def _sentence(fault: Any, places: dict[Place, int], path: Path) -> str:
    place: Place = tuple(part for part in fault["loc"] if not _is_union_tag(part))
    where = f"{_where(place, places, path)}: "
    name = _dotted(place)
    if fault["type"] == "extra_forbidden":
        known = _keys_at(TaskSpec, place[:-1])
        hint = nearest(str(place[-1]), known) or f" (known here: {', '.join(sorted(known))})"
        return f"{where}there is no key {name}{hint}"
    if fault["type"] == "missing":
        return f"{where}the key {name} is missing"
    message = _OWN_WORDS.get(fault["type"], str(fault["msg"]).removeprefix("Value error, "))
    value = fault.get("input")
    shown = f", not {value!r}" if isinstance(value, str | int | float | bool) or value is None else ""
    return f"{where}{name or 'the task'}: {message[:1].lower()}{message[1:]}{shown}"


def _where(place: Place, places: dict[Place, int], path: Path) -> str:
    for length in range(len(place), -1, -1):
        line = places.get(place[:length])
        if line == 0 and length:
            return f"--set {_dotted(place[:length])}"
        if line:
            return f"{path}:{line}"
    return str(path)


def _is_union_tag(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part.startswith(("literal", "tuple", "constrained")))


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place)


def _keys_at(model: type[BaseModel], place: Place) -> set[str]:
    for part in place:
        field = model.model_fields.get(str(part))
        inner = (
            [kind for kind in _kinds(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
            if field
            else []
        )
        if not inner:
            return set()
        model = inner[0]
    return {field.alias or name for name, field in model.model_fields.items()}


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ()) or (annotation,)


def _missing_files(values: dict[str, Any], places: dict[Place, int], path: Path) -> Iterator[str]:
    named: list[tuple[Place, Any]] = []
    if isinstance(data := values.get("data"), dict):
        named += [(("data", name), data.get(name)) for name in ("train", *_HELD_OUT)]
        if isinstance(sources := data.get("train"), list):
            named += [
                (("data", "train", n), one.get("source")) for n, one in enumerate(sources) if isinstance(one, dict)
            ]
    if isinstance(train := values.get("train"), dict) and isinstance(words := train.get("vocabulary"), dict):
        named.append((("train", "vocabulary", "file"), words.get("file")))
    named += [((name,), values.get(name)) for name in ("documents", "schema", "instruction")]
    for place, name in named:
        if not isinstance(name, str) or name.startswith("hub:"):
            continue
        if place == ("instruction",):
            if not name.startswith("file:"):
                continue
            name = name.removeprefix("file:").strip()
        full = path.parent / expanded(name)
        folder = place == ("documents",)
        if not _is_there(full, folder):
            kind = "folder" if folder else "file"
            yield f"{_where(place, places, path)}: there is no {kind} {name} ({_dotted(place)})"


def _is_there(path: Path, folder: bool) -> bool:
    try:
        return path.is_dir() if folder else path.exists()
    except OSError:  # a name that no file system takes
        return False


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"this text cannot be read ({error})", where=str(path), fix="name a UTF-8 text file") from None


def _faults(path: Path, faults: list[str]) -> BadInput:
    if len(faults) == 1:
        return BadInput(faults[0])
    lines = "".join(f"\n  {fault}" for fault in faults)
    return BadInput(f"{path}: {len(faults)} faults:{lines}")


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or error).splitlines()[0]


def _marked(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{path}:{mark.line + 1}" if mark is not None else str(path)
