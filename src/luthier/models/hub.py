"""Fetch a model folder from the Hugging Face hub: its safetensors, JSON and tokenizer files, nothing else.

What was fetched once is used from the hub's own cache without asking the network, so a task keeps its revision until
the cache is emptied, and works offline. Files with code or pickles are not even downloaded.

    folder = fetch_snapshot("HuggingFaceTB/SmolLM2-135M-Instruct", tell=silent)
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from luthier.ground.errors import BadInput, LuthierError
from luthier.ground.events import Tell, silent
from luthier.models.folder import check_folder
from luthier.models.quiet import no_progress_bars

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WANTED = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "1_Pooling/config.json"]
_BLOB = re.compile(r"[0-9a-f]{64}")
_TIMEOUT_S = 5.0


def looks_like_hub_id(name: str) -> bool:
    """Say whether `name` has the form owner/name."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name


def hub_cache() -> Path:
    """Return the hub's own cache folder."""
    return Path(constants.HF_HUB_CACHE)


def fetch_snapshot(hub_id: str, *, tell: Tell = silent) -> Path:
    """Return the local folder of a hub model, downloading it if it is not whole in the hub's cache.

    Raises:
        BadInput: the hub cannot be reached, or has no such model, or wants a login for it.
    """
    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True))
        check_folder(folder, links_into=hub_cache())
        return folder
    except (LocalEntryNotFoundError, LuthierError):
        tell({"kind": "model", "text": f"fetching {hub_id} from the hub (once)"})
    return _download(hub_id)


def fetch_config(hub_id: str, *, tell: Tell = silent) -> Path:
    """Return the config.json of a hub model, and nothing else of it; errors are those of `fetch_snapshot`."""
    try:
        return Path(hf_hub_download(hub_id, "config.json", local_files_only=True))
    except LocalEntryNotFoundError:
        tell({"kind": "model", "text": f"fetching the config of {hub_id} from the hub (once)"})
    with _told(hub_id), no_progress_bars():
        return Path(hf_hub_download(hub_id, "config.json", etag_timeout=_TIMEOUT_S))


def snapshot_hash(file: Path) -> str | None:
    """Return the SHA-256 of a weights file in the hub's cache, which names its blobs by it; None for any other file."""
    real = file.resolve()
    return real.name if file.is_symlink() and real.parent.name == "blobs" and _BLOB.fullmatch(real.name) else None


def _download(hub_id: str) -> Path:
    with _told(hub_id), no_progress_bars():
        return Path(
            snapshot_download(
                hub_id, allow_patterns=_WANTED, ignore_patterns=["*/*.safetensors"], etag_timeout=_TIMEOUT_S
            )
        )


@contextlib.contextmanager
def _told(hub_id: str) -> Iterator[None]:
    """Tell in one sentence what went wrong with the hub within the block."""
    try:
        yield
    except GatedRepoError as error:
        raise BadInput(f"the hub wants a login for {hub_id}", fix="accept its terms there and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise BadInput(f"the hub has no model {hub_id}", fix="check the spelling") from error
    except RemoteEntryNotFoundError as error:
        raise BadInput(f"{hub_id} has no config.json on the hub", fix="name a model of transformers") from error
    except OfflineModeIsEnabled as error:
        raise BadInput(f"{hub_id} is not on this machine and HF_HUB_OFFLINE is set", fix="unset it once") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise BadInput(
            f"{hub_id} is not on this machine and the hub cannot be reached ({type(error).__name__})",
            fix="connect once, or name a preset, a folder or a GGUF file",
        ) from error
