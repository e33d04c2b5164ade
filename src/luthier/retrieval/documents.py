"""Find and read the documents of a folder.

Nothing is dropped in silence: a file that cannot be used is named with its reason. Word processor files, images and
archives are not read, and links out of the folder are not followed.

    >>> parse_document("a.md", b"# Brakes\\n\\nBleed them yearly.").sections[0].headings
    ('Brakes',)
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from luthier.ground.errors import BadInput
from luthier.ground.results import SkippedFile
from luthier.retrieval.outline import Document
from luthier.retrieval.parsers import ENDINGS, parse

LARGEST_BYTES = 64 * 2**20


def read_document(path: Path, *, folder: Path | None = None) -> Document:
    """Read one document; its path is told relative to `folder` (default: the file's own folder).

    Raises:
        BadInput: the file cannot be read, is of another type, is not text, or holds no text.
    """
    name = path.relative_to(folder or path.parent).as_posix()
    return parse_document(name, read_bytes(path, name))


def read_bytes(path: Path, name: str) -> bytes:
    """Return the bytes of a regular file of a bearable size.

    Raises:
        BadInput: it cannot be read, is not a regular file, or is too large; `name` is the place told.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadInput("not a regular file", where=name)
        if status.st_size > LARGEST_BYTES:
            raise BadInput(f"larger than {LARGEST_BYTES // 2**20} MiB", where=name, fix="split it")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read ({_reason(error)})", where=name) from error


def parse_document(path: str, content: bytes) -> Document:
    """Return the document that `content` holds, by the ending of its name. Raises BadInput as `read_document` does."""
    sections = parse(path, content)
    if not sections:
        raise BadInput("holds no text", where=path)
    return Document(path, sections)


def find_documents(folder: Path, *, besides: Path) -> tuple[dict[str, Path], list[SkippedFile]]:
    """Return the documents of `folder` by relative path, in order of path, and what is passed over, with the reasons.

    Args:
        besides: a folder that may lie inside `folder` and is no part of it (the index's own store).
    """
    found: dict[str, Path] = {}
    skipped: list[SkippedFile] = []
    for path in _walk(folder, _real(besides), skipped):
        name = path.relative_to(folder).as_posix()
        reason = _reason_to_skip(path, name, _real(folder))
        if reason:
            skipped.append(SkippedFile(file=_printable(name), reason=reason))
        else:
            found[name] = path
    return dict(sorted(found.items())), sorted(skipped, key=lambda entry: entry.file)


def _walk(folder: Path, besides: Path, skipped: list[SkippedFile]) -> Iterator[Path]:
    def note(path: Path, reason: str) -> None:
        skipped.append(SkippedFile(file=_printable(path.relative_to(folder).as_posix()) + "/", reason=reason))

    def failed(error: OSError) -> None:
        note(Path(error.filename), f"cannot be read ({_reason(error)})")

    for parent, folders, files in os.walk(folder, onerror=failed):
        for name in list(folders):
            path = Path(parent, name)
            if _real(path) == besides:
                folders.remove(name)
            elif name.startswith(".") or path.is_symlink():
                folders.remove(name)
                note(path, "hidden" if name.startswith(".") else "a link to a folder")
        yield from (Path(parent, name) for name in files)


def _reason_to_skip(path: Path, name: str, root: Path) -> str | None:
    if path.name.startswith("."):
        return "hidden"
    if name != _printable(name):
        return "the name is not valid Unicode"
    if path.is_symlink() and not _real(path).is_relative_to(root):
        return "a link out of the folder"
    if path.suffix.lower() not in ENDINGS:
        return f"not a type that is read here ({path.suffix.lower() or 'no ending'})"
    return None if path.is_file() else "not a regular file"


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises on a loop of links


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
