"""The way of the data: Row → Encoded → Pack. Types only; NumPy, no torch.

>>> row = Row(id="1", place="train.jsonl:1", messages=(Message("user", "2+2?"), Message("assistant", "4")))
>>> row.input, row.reference
('2+2?', '4')
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
GAP = "<gap>"  # stands where text is missing, in what a system is asked


@dataclass(frozen=True)
class ToolCall:
    """A function that the assistant calls; `arguments` is the JSON text of an object."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One turn. `role` is system, user, assistant or tool.

    Attributes:
        train: of an assistant's turn: whether it may be a target.
        tool_calls: of an assistant's turn.
        name: of a tool's turn: the function that answers.
    """

    role: str
    content: str
    train: bool = True
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None

    @property
    def written(self) -> str:
        """The turn as plain text: what is said, then each call as a line of JSON."""
        calls = (
            f'{{"name":{json.dumps(c.name, ensure_ascii=False)},"arguments":{c.arguments}}}' for c in self.tool_calls
        )
        return "\n".join([*([self.content] if self.content.strip() or not self.tool_calls else []), *calls])


@dataclass(frozen=True)
class Row:
    """One example. Either `messages` (a conversation) or `text` (raw text, every token a target) is set.

    Attributes:
        id: its name, unique in its split.
        place: where it stands: `train.jsonl:1204` (physical line).
        group: rows with the same group belong together (one document, one user, one product).
        weight: what the row's targets count in the loss, relative to other rows.
        tools: functions that the assistant may call: the JSON text of a list of schemas.
        gap: characters of `text` that are missing, [first, end).
        origin: its source, where training mixes several.
    """

    id: str
    place: str
    messages: tuple[Message, ...] | None = None
    text: str | None = None
    group: str | None = None
    weight: float = 1.0
    tools: str | None = None
    gap: tuple[int, int] | None = None
    origin: str = ""

    @property
    def input(self) -> str:
        """The last user message (or the raw text, with its gap marked): what a system is asked."""
        if self.messages is None:
            text = self.text or ""
            return f"{text[: self.gap[0]]}{GAP}{text[self.gap[1] :]}" if self.gap else text
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def reference(self) -> str:
        """The last assistant message, its calls as JSON, or what stood in the gap: what a right answer is."""
        if self.gap is not None and self.text is not None:
            return self.text[self.gap[0] : self.gap[1]]
        if self.messages is None or not self.messages or self.messages[-1].role != "assistant":
            return ""
        return self.messages[-1].written


@dataclass(frozen=True)
class Encoded:
    """A row as tokens. `target_T[t]` says that token `t` is predicted and trained (never true for t = 0).

    Attributes:
        ids_T: token ids, shape [T].
        target_T: target mask, shape [T].
        cut: tokens that the length policy removed from the prompt's beginning.
        weight_T: what each target counts in the loss, shape [T]; None: 1.
        encoder_S: what an encoder reads, shape [S]; `ids_T` is then what the decoder reads.
        label_L: what the row is labelled with: one-hot, multi-hot or a value, shape [L].
        origin: its source, where training mixes several.
    """

    ids_T: IntArray
    target_T: BoolArray
    place: str
    cut: int = 0
    weight_T: FloatArray | None = None
    encoder_S: IntArray | None = None
    label_L: FloatArray | None = None
    origin: str = ""

    @property
    def target_tokens(self) -> int:
        return int(self.target_T.sum())

    def __len__(self) -> int:
        return len(self.ids_T) + (0 if self.encoder_S is None else len(self.encoder_S))


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
        weight_T: what each target counts in the loss, shape [T]; None: 1.
        encoder_S: what an encoder reads of all rows end to end, shape [S]; None without an encoder.
        encoder_lengths: tokens of each row in `encoder_S`; they sum to S.
        label_RL: the labels of the rows, in the order of their targets, shape [R, L].
    """

    ids_T: IntArray
    positions_T: IntArray
    target_T: BoolArray
    lengths: tuple[int, ...]
    places: tuple[str, ...]
    parents: tuple[int, ...] = ()
    weight_T: FloatArray | None = None
    encoder_S: IntArray | None = None
    encoder_lengths: tuple[int, ...] = ()
    label_RL: FloatArray | None = None

    @property
    def target_tokens(self) -> int:
        return int(self.target_T.sum())

    @property
    def target_weights_N(self) -> FloatArray | None:
        """What each target counts in the loss, [N]; None: 1."""
        return None if self.weight_T is None else self.weight_T[self.target_T]

    @property
    def target_weight(self) -> float:
        """The sum of the targets' weights, by which a step divides."""
        weights_N = self.target_weights_N
        return self.target_tokens if weights_N is None else float(weights_N.sum(dtype=np.float64))

    @property
    def row_tokens(self) -> int:
        """Tokens of the rows, a shared beginning counted for each of them."""
        own = [*self.lengths]
        for segment, parent in enumerate(self.parents):
            own[segment] += own[parent] if parent >= 0 else 0
        decoded = sum(length for length, place in zip(own, self.places, strict=True) if place)
        return decoded + sum(self.encoder_lengths)

    @property
    def predictors_N(self) -> IntArray:
        """The token that stands before each target in its row, [N]: its hidden state predicts the target."""
        before_T = np.arange(-1, len(self.ids_T) - 1)
        ends = np.cumsum(self.lengths)
        for segment, parent in enumerate(self.parents):
            if parent >= 0:
                before_T[ends[segment] - self.lengths[segment]] = ends[parent] - 1
        return before_T[self.target_T]

    def __len__(self) -> int:
        return len(self.ids_T) + (0 if self.encoder_S is None else len(self.encoder_S))
