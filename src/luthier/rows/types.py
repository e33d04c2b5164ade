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

    Rows that begin alike may share their beginning: it is a segment of its own, and each row's rest continues it.

    Attributes:
        ids_T: token ids of all segments, shape [T].
        positions_T: position within its row, shape [T].
        target_T: target mask, shape [T]; false at each row's first token.
        lengths: tokens of each segment (without sharing: of each row); they sum to T.
        places: where each segment's row stands; "" for a shared beginning.
        parents: the segment that each one continues, −1 for none; empty when nothing is shared.
    """

    ids_T: IntArray
    positions_T: IntArray
    target_T: BoolArray
    lengths: tuple[int, ...]
    places: tuple[str, ...]
    parents: tuple[int, ...] = ()

    @property
    def target_tokens(self) -> int:
        return int(self.target_T.sum())

    @property
    def row_tokens(self) -> int:
        """Tokens of the rows, a shared beginning counted for each of them."""
        own = [*self.lengths]
        for segment, parent in enumerate(self.parents):
            own[segment] += own[parent] if parent >= 0 else 0
        return sum(length for length, place in zip(own, self.places, strict=True) if place)

    @property
    def predictors_N(self) -> IntArray:
        """The token that stands before each target in its row, [N]: its hidden state predicts the target."""
        before_T = np.arange(-1, len(self) - 1)
        ends = np.cumsum(self.lengths)
        for segment, parent in enumerate(self.parents):
            if parent >= 0:
                before_T[ends[segment] - self.lengths[segment]] = ends[parent] - 1
        return before_T[self.target_T]

    def __len__(self) -> int:
        return len(self.ids_T)
