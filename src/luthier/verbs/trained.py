"""What was trained, from the folder in which it lies: into the model it belongs to, and out again.

The folder knows the base model's name, and what was put into that before the adapter: new tokens, a longer window.
Heads and marks are the objective's own affair.

    renderer, extensions = saved_extensions(renderer_of(found), folder)
    with trained_in(model, extensions, folder): ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import PreTrainedModel

from luthier.adapters.base import FACTS, kind_of_folder, load_adapter, remove_adapter
from luthier.ground.errors import BadInput
from luthier.models.architecture import architecture_of
from luthier.models.context import ContextExtension
from luthier.models.extension import Extension, loaded_from
from luthier.models.find import Found
from luthier.models.folder import read_json_file
from luthier.models.load import load_config, load_tokenizer, stop_ids
from luthier.models.seq2seq import start_ids
from luthier.models.vocabulary import saved_tokens
from luthier.objectives.added_tokens import with_tokens
from luthier.rows.source import SourceRenderer
from luthier.rows.template import Renderer, text_renderer


@contextlib.contextmanager
def trained_in(model: PreTrainedModel, extensions: Sequence[Extension], folder: Path) -> Iterator[None]:
    """Put extensions and the adapter in `folder` into the model for the length of the block."""
    with loaded_from(model, extensions, folder):
        load_adapter(model, folder)
        try:
            yield
        finally:
            remove_adapter(model)


def saved_extensions(renderer: Renderer, folder: Path) -> tuple[Renderer, tuple[Extension, ...]]:
    """Return what lies beside an adapter to be put into the base model first, and a renderer that knows its tokens.

    Args:
        renderer: of the base model.
    """
    found: list[Extension] = []
    if (window := ContextExtension.saved(folder)) is not None:
        found.append(window)
    resized = kind_of_folder(folder) == "full"
    for tokens, special in saved_tokens(folder):
        renderer, extension = with_tokens(renderer, tokens, special=special, resized=resized)
        found.append(extension)
    return renderer, tuple(found)


def renderer_of(found: Found) -> Renderer:
    """Return what turns conversations, or texts, into the tokens of a base model."""
    config, tokenizer = load_config(found), load_tokenizer(found)
    architecture = architecture_of(config)
    if architecture == "encoder":
        return text_renderer(tokenizer)
    if architecture == "encoder-decoder":
        return SourceRenderer(tokenizer, start_ids=start_ids(config), stop_ids=stop_ids(found))
    return Renderer(tokenizer, stop_ids=stop_ids(found))


def base_of(folder: Path) -> str:
    """Return the name of the base model that the adapter in `folder` was trained on.

    Raises:
        BadInput: the folder does not say.
    """
    facts = read_json_file(folder / FACTS) if (folder / FACTS).is_file() else {}
    base = facts.get("base")
    name = base.get("name") if isinstance(base, dict) else None
    if not isinstance(name, str):
        raise BadInput(
            "the adapter does not say which base model it belongs to", where=str(folder), fix="name the model"
        )
    return name
