"""The way of the data: Row → Encoded → Pack. Types only; NumPy, no torch.

>>> row = Row(id="1", place="train.jsonl:1", messages=(Message("user", "2+2?"), Message("assistant", "4")))
>>> row.input, row.reference
('2+2?', '4')
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Message:
    """One turn. `role` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True)
class Row:
    """One example. Either `messages` (a conversation) or `text` (raw text, every token a target) is set.

    Attributes:
        id: its name, unique in its split.
        place: where it stands: `train.jsonl:1204` (physical line).
        group: rows with the same group belong together (one document, one user, one product).
    """

    id: str
    place: str
    messages: tuple[Message, ...] | None = None
    text: str | None = None
    group: str | None = None

    @property
    def input(self) -> str:
        """The last user message (or the raw text): what a system is asked."""
        if self.messages is None:
            return self.text or ""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def reference(self) -> str:
        """The last assistant message: what a right answer is; empty if there is none."""
        if self.messages is None or not self.messages or self.messages[-1].role != "assistant":
            return ""
        return self.messages[-1].content


@dataclass(frozen=True)
class Encoded:
    """A row as tokens. `target_T[t]` says that token `t` is predicted and trained (never true for t = 0).

    Attributes:
        ids_T: token ids, shape [T].
        target_T: target mask, shape [T].
        cut: tokens that the length policy removed from the prompt's beginning.
    """

    ids_T: IntArray
    target_T: BoolArray
    place: str
    cut: int = 0

    @property
    def target_tokens(self) -> int:
        return int(self.target_T.sum())

    def __len__(self) -> int:
        return len(self.ids_T)


@dataclass(frozen=True)
class Pack:
    """Several rows end to end, without padding. Rows never see each other; positions restart at each.

    Attributes:
        ids_T: token ids of all rows, shape [T].
        positions_T: position within its row, shape [T].
        target_T: target mask, shape [T]; false at each row's first token.
        lengths: tokens of each row; they sum to T.
        places: where each row stands.
    """

    ids_T: IntArray
    positions_T: IntArray
    target_T: BoolArray
    lengths: tuple[int, ...]
    places: tuple[str, ...]

    @property
    def target_tokens(self) -> int:
        return int(self.target_T.sum())

    def __len__(self) -> int:
        return len(self.ids_T)
