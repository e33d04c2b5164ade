"""What Luthier needs of a tokenizer: exact encoding of pieces, special tokens that stay text, and decoding back.

It wraps a fast tokenizer of `transformers`. Encoding never adds tokens by itself (templates write their own), except
`encode_document`, which treats raw text as the tokenizer was made to.

    tokens = Tokens(tokenizer)
    tokens.encode("Hello <|im_end|>", literals=[(6, 16)])     # the end token's name, as text
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from luthier.ground.errors import BadInput

_LEADS = ("\n", "☃")  # a line break may merge with what follows; a snowman does not


class Tokens:
    """A fast tokenizer, seen as exact pieces.

    Attributes:
        controls: special tokens, text → id.
        controls_pattern: finds them in text, the longest first; None when there are none.
        names: bos_token, eos_token … as chat templates want them; eos_token is sep_token where there is no other.
        adds_bos: raw text gets a begin-of-text token.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            kind = type(tokenizer).__name__
            raise BadInput(f"the tokenizer ({kind}) is not a fast one", fix="choose a model that has a tokenizer.json")
        self._backend = backend
        backend.no_truncation()
        backend.no_padding()
        self.names: dict[str, str] = {
            name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)
        }
        self.names.setdefault("bos_token", "")
        self.bos_id: int | None = tokenizer.bos_token_id
        self.eos_id: int | None = tokenizer.eos_token_id
        if self.eos_id is None:  # BERT's family ends texts with the token that separates them
            self.eos_id = tokenizer.sep_token_id
            self.names.setdefault("eos_token", self.names.get("sep_token", ""))
        self.names.setdefault("eos_token", "")
        added = {token.content: (token, index) for index, token in tokenizer.added_tokens_decoder.items()}
        always = {self.names["bos_token"], self.names["eos_token"]}
        self.controls = {text: index for text, (token, index) in added.items() if token.special or text in always}
        self._swallows_after = {text for text, (token, _) in added.items() if token.rstrip}
        self._swallows_before = {text for text, (token, _) in added.items() if token.lstrip}
        self.controls_pattern = _any_of(self.controls)
        self._leads = self._find_leads()
        self._bare_after_control = self._is_bare_after_control()
        document = backend.encode("a", add_special_tokens=True).ids
        self.adds_bos = self.bos_id is not None and document[:1] == [self.bos_id]
        self._unknown: int | None = tokenizer.unk_token_id

    def encode(
        self, text: str, literals: Sequence[tuple[int, int]] = (), start: int = 0, end: int | None = None
    ) -> list[int]:
        """Return the tokens of `text[start:end]`; special tokens inside the ranges `literals` stay text."""
        end = len(text) if end is None else end
        inside = [span for span in literals if span[0] < end and span[1] > start]
        if not inside:
            return self._encode(text[start:end], first=self._is_alone(text, start))
        ids: list[int] = []
        cursor, alone = start, self._is_alone(text, start)
        for match in self._real_controls(text, inside, start, end):
            before = text[cursor : match.start()]
            if match[0] in self._swallows_before:
                before = before.rstrip()
            ids += self._encode(before, first=alone, plain=True)
            ids.append(self.controls[match[0]])
            cursor = self.swallow(text, match.end())
            alone = not self._bare_after_control
        return ids + self._encode(text[cursor:end], first=alone, plain=True)

    def encode_document(self, text: str) -> list[int]:
        """Return raw text as the tokenizer was made to see it, with the end-of-text token; special tokens stay text."""
        ids = self._run(text, plain=True, add_special_tokens=True) if text else []
        if ids and self.eos_id is not None and ids[-1] != self.eos_id:
            ids.append(self.eos_id)
        return ids

    def ends(self, text: str) -> list[int]:
        """Return where each token of raw text ends, in characters."""
        self._backend.encode_special_tokens = True
        try:
            return [end for _, end in self._backend.encode(text, add_special_tokens=False).offsets]
        finally:
            self._backend.encode_special_tokens = False

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones included."""
        return str(self._backend.decode([int(i) for i in ids], skip_special_tokens=False))

    def spells(self, ids: Sequence[int], text: str) -> bool:
        """Tell whether the tokens decode to `text`, but for what the tokenizer's own normaliser changes."""
        decoded = self.decode(ids)
        if decoded == text or self._unknown in ids:
            return True
        return _loose(decoded) == _loose(text) or _loose(decoded) == _loose(self._normalised(text))

    def swallow(self, text: str, at: int) -> int:
        """Return where the piece after `at` begins: some special tokens take the white space behind them along."""
        if any(text.endswith(token, 0, at) for token in self._swallows_after):
            while at < len(text) and text[at].isspace():
                at += 1
        return at

    def id_of(self, token: str | None) -> int | None:
        return self.controls.get(token) if token is not None else None

    def _is_alone(self, text: str, start: int) -> bool:
        """Tell whether the piece from `start` on is encoded as a text of its own is."""
        if start == 0 or self._bare_after_control:
            return start == 0
        return any(text.endswith(control, 0, start) for control in self.controls)

    def _real_controls(
        self, text: str, literals: Sequence[tuple[int, int]], start: int, end: int
    ) -> list[re.Match[str]]:
        assert self.controls_pattern is not None
        found = self.controls_pattern.finditer(text, start, end)
        return [match for match in found if not any(a <= match.start() < b for a, b in literals)]

    def _encode(self, text: str, *, first: bool, plain: bool = False) -> list[int]:
        if not first:
            # SentencePiece puts a space before the first word of a text: something in front keeps it from doing so in
            # the middle of one.
            for lead, lead_ids in self._leads:
                led = self._run(lead + text, plain=plain)
                if led[: len(lead_ids)] == lead_ids:
                    return led[len(lead_ids) :]
        return self._run(text, plain=plain)

    def _run(self, text: str, *, plain: bool, add_special_tokens: bool = False) -> list[int]:
        self._backend.encode_special_tokens = plain
        try:
            return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)
        finally:
            self._backend.encode_special_tokens = False

    def _find_leads(self) -> list[tuple[str, list[int]]]:
        """Return what a piece may be encoded behind, with its ids; nothing for tokenizers that need no such care."""
        leads = [(lead, self._run(lead, plain=False)) for lead in _LEADS]
        plain_ids = self._run("ab", plain=False)
        needed = any(self._run(lead + "ab", plain=False) != ids + plain_ids for lead, ids in leads)
        return leads if needed else []

    def _is_bare_after_control(self) -> bool:
        """Tell whether text behind a special token is encoded as text in the middle is, without a space before it."""
        if not self._leads or not self.controls:
            return True
        control = next(iter(self.controls))
        return self._run(control + "ab", plain=False)[1:] != self._run("ab", plain=False)

    def _normalised(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return str(normalizer.normalize_str(text)) if normalizer is not None else text


def _any_of(words: Sequence[str] | dict[str, int]) -> re.Pattern[str] | None:
    longest_first = sorted((word for word in words if word), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _loose(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text.replace("▁", " ")).split())
