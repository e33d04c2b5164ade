"""What is put into a base model before anything is trained: more tokens, a head, a longer window.

An extension changes a loaded model in place, says what of it is trained, is saved beside the adapter, and is taken away
without a trace. It comes before the adapter, which may train what it brings. What an adapter is stands in
`luthier.adapters`.

    with applied(model, extensions, seed=0) as trained: ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from torch import nn
from transformers import PreTrainedModel


class Extension(Protocol):
    """One change of a base model. It must work on a model without memory (meta tensors) too."""

    @property
    def name(self) -> str:
        """What it is called, in file names too."""
        ...

    def apply(self, model: PreTrainedModel, *, seed: int) -> dict[str, nn.Parameter]:
        """Put it into the model; return what of it is trained beside the adapter, float32, by name."""
        ...

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write it into an adapter's folder."""
        ...

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        """Put it into the model as it was saved, to answer; nothing of it is trained.

        Raises:
            BadInput: the folder does not hold it, or it does not fit the model.
        """
        ...

    def remove(self, model: PreTrainedModel) -> None:
        """Take it away, so that the model is bit for bit as before; harmless if it is not there."""
        ...


@contextlib.contextmanager
def applied(model: PreTrainedModel, extensions: Sequence[Extension], *, seed: int) -> Iterator[dict[str, nn.Parameter]]:
    """Put extensions into a model for the length of the block; yield what of them is trained, by name."""
    with contextlib.ExitStack() as stack:
        trained: dict[str, nn.Parameter] = {}
        for extension in extensions:
            stack.callback(extension.remove, model)
            trained.update(extension.apply(model, seed=seed))
        yield trained


@contextlib.contextmanager
def loaded_from(model: PreTrainedModel, extensions: Sequence[Extension], folder: Path) -> Iterator[None]:
    """Put extensions into a model as they were saved, for the length of the block."""
    with contextlib.ExitStack() as stack:
        for extension in extensions:
            stack.callback(extension.remove, model)
            extension.load(model, folder)
        yield
