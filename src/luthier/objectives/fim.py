"""Fill in the middle: move a span to the end of its text, between sentinels (Bavarian et al. 2022).

    PSM     <PRE> prefix <SUF> suffix <MID> middle <EOT>
    SPM     <PRE> <SUF> suffix <MID> prefix middle <EOT>

SPM is the paper's second variant: it uses PSM's sentinels in PSM's order, so that both can be trained
together and help each other. Each part is tokenised by itself, so that what is asked later is tokenised as it was
trained, wherever the gap lies. Which span is moved, and how often, is not decided here.

    order = psm(sentinels, [5, 6], [7], [8, 9]); order.ids
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.objectives.gaps import Gap, Parts
from luthier.objectives.sentinels import Sentinels
from luthier.rows.tokens import Tokens


@dataclass(frozen=True)
class PartIds:
    """The tokens of each part."""

    prefix: list[int]
    middle: list[int]
    suffix: list[int]

    def __len__(self) -> int:
        return len(self.prefix) + len(self.middle) + len(self.suffix)


@dataclass(frozen=True)
class Ordered:
    """Tokens in their new order; the first `asked` of them stand before the middle."""

    ids: list[int]
    asked: int


def psm(sentinels: Sentinels, parts: PartIds) -> Ordered:
    """Return prefix, suffix, middle."""
    asked = [sentinels.prefix, *parts.prefix, sentinels.suffix, *parts.suffix, sentinels.middle]
    return Ordered([*asked, *parts.middle], len(asked))


def spm(sentinels: Sentinels, parts: PartIds) -> Ordered:
    """Return suffix, prefix, middle (variant 2): the middle goes on where the prefix ends."""
    asked = [sentinels.prefix, sentinels.suffix, *parts.suffix, sentinels.middle, *parts.prefix]
    return Ordered([*asked, *parts.middle], len(asked))


def encode_parts(tokens: Tokens, text: str, gap: Gap) -> PartIds:
    """Return the tokens of what stands before, in and after the gap; special tokens written in the text stay text."""
    parts = Parts.of(text, gap)
    prefix = tokens.encode(parts.prefix, [(0, len(text))]) if parts.prefix else []
    return PartIds(prefix, _inner(tokens, parts.middle), _inner(tokens, parts.suffix))


def _inner(tokens: Tokens, text: str) -> list[int]:
    """Return the tokens of a text that never begins a document: some tokenizers would put a space before it."""
    return tokens.encode(f"\n{text}", [(0, len(text) + 1)], 1) if text else []


def trimmed(parts: PartIds, room: int) -> PartIds:
    """Return the parts with context taken off at the far ends, so that prefix and suffix have at most `room` tokens.

    Each side keeps half of the room, and what the other does not need.
    """
    before, after = len(parts.prefix), len(parts.suffix)
    if before + after <= room:
        return parts
    kept_before = min(before, max(room - room // 2, room - after))
    kept_after = room - kept_before
    return PartIds(parts.prefix[before - kept_before :], parts.middle, parts.suffix[:kept_after])


def filling_text(tokens: Tokens, prefix: Sequence[int], middle: Sequence[int]) -> str:
    """Return the text of a middle as it goes on behind a prefix: alone, some tokenizers would drop its first space."""
    before = list(prefix[-16:])
    return tokens.decode([*before, *middle])[len(tokens.decode(before)) :]
