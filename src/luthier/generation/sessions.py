"""A session decodes one batch: prompts in, then one token per row and step; rows leave when they are finished.

`SlotSession` is the fast way (`luthier.generation.slots`); `PlainSession` is the reference, right for any causal model
with a cache: transformers' own dynamic cache, the prefix copied to every row. Both share a prefix that was computed
once, pad on the left, and mask and position tokens so that padding has no influence. They do not choose tokens.

    session = SlotSession(model, prefix, own, new_tokens=64)
    logits_BV = session.prefill()
    logits_BV = session.step(ids_B)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from luthier.generation.slots import Shared, SlotCache, shared_attention

CHUNK_TOKENS = 1024  # tokens of one forward pass while prompts are read: more fall out of the processor's cache
ROW_TOKENS = 32  # fewer tokens a row and pass are not worth the pass
SCORE_BYTES = 24 << 20  # bound of one row's attention scores in one layer while prompts are read
FIRST_ROOM = 96  # slots for new tokens that are allocated at first


class Session(Protocol):
    """One batch being decoded."""

    def prefill(self) -> Tensor:
        """Read the prompts and return the scores of each row's first token, [B, V]."""

    def step(self, ids_B: Tensor) -> Tensor:
        """Append one token to each row and return the scores of the next, [B, V]."""

    def select(self, order: Sequence[int]) -> None:
        """Let row `j` be what row `order[j]` was (`order[j] >= j`); the others leave."""


class SlotSession:
    """The fast way: the prefix is stored once, tokens are written in place."""

    def __init__(
        self, model: PreTrainedModel, prefix: Shared | None, own: Sequence[Sequence[int]], new_tokens: int
    ) -> None:
        self.model = model
        self.ids_BT, self.pads_B = pad_left(own, model.device)
        self.offset = len(prefix) if prefix else 0
        layers = model.config.get_text_config(decoder=True).num_hidden_layers
        self.cache = SlotCache(layers, prefix, self.ids_BT.shape[1] + min(new_tokens, FIRST_ROOM))
        self.length = 0
        self.padded = bool(self.pads_B.any())

    def prefill(self) -> Tensor:
        logits_BV = torch.empty(0)
        for tokens in self.passes():
            logits_BV = self.read(tokens)
        return logits_BV

    def passes(self) -> list[int]:
        """Return how many tokens of each prompt every forward pass of `prefill` reads."""
        rows, total = self.ids_BT.shape
        sizes: list[int] = []
        while (start := sum(sizes)) < total:
            sizes.append(min(self._chunk(rows, start), total - start))
        return sizes

    def read(self, tokens: int) -> Tensor:
        """Read the next tokens of each prompt and return the scores of what follows, [B, V]."""
        return self._forward(self.ids_BT[:, self.length : self.length + tokens])

    def step(self, ids_B: Tensor) -> Tensor:
        return self._forward(ids_B.unsqueeze(1))

    def select(self, order: Sequence[int]) -> None:
        self.cache.select(order)
        self.pads_B = self.pads_B[list(order)]
        self.padded = bool(self.pads_B.any())

    def _chunk(self, rows: int, start: int) -> int:
        """Tokens per row that one forward pass may read: bounded work, and bounded attention scores."""
        config = self.model.config.get_text_config(decoder=True)
        most = max(ROW_TOKENS, CHUNK_TOKENS // rows)
        seen = self.offset + min(self.ids_BT.shape[1], start + most)
        score_bytes = int(config.num_attention_heads) * seen * 4
        return int(max(1, min(most, SCORE_BYTES // score_bytes)))

    def _forward(self, ids_BT: Tensor) -> Tensor:
        start, end = self.length, self.length + ids_BT.shape[1]
        slots_T = torch.arange(start, end, device=ids_BT.device)
        positions_BT = (self.offset + slots_T - self.pads_B.unsqueeze(1)).clamp_(min=0)
        self.length = end
        with shared_attention(self.model, self.cache):
            output = self.model(
                input_ids=ids_BT,
                position_ids=positions_BT,
                attention_mask=self._mask(start, end),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=last_place(ids_BT),
            )
        logits_B1V: Tensor = output.logits
        return logits_B1V[:, -1]

    def _mask(self, start: int, end: int) -> Tensor | None:
        """Return what is added to the scores [B or 1, 1, T, K] of own tokens; None when all are seen."""
        if not self.padded and end - start == 1:
            return None
        slots_K = torch.arange(end, device=self.pads_B.device)
        seen_1TK = (slots_K <= slots_K[start:].unsqueeze(1)).unsqueeze(0)
        if self.padded:
            seen_1TK = seen_1TK & (slots_K >= self.pads_B.unsqueeze(1)).unsqueeze(1)
        blocked = torch.zeros(seen_1TK.shape, dtype=self.model.dtype, device=self.pads_B.device)
        # The smallest finite number, not -inf: a row of padding alone must stay finite.
        return blocked.masked_fill_(~seen_1TK, torch.finfo(self.model.dtype).min).unsqueeze(1)


class PlainSession:
    """The reference: transformers' cache, a copy of the prefix in every row."""

    def __init__(self, model: PreTrainedModel, prefix: PlainPrefix | None, own: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.ids_BT, pads_B = pad_left(own, model.device)
        rows, total = self.ids_BT.shape
        self.offset = len(prefix) if prefix else 0
        self.cache = prefix.expand(rows) if prefix else DynamicCache(config=model.config)
        own_BT = torch.arange(total, device=model.device) >= pads_B.unsqueeze(1)
        self.mask_BK = torch.cat([own_BT.new_ones(rows, self.offset), own_BT], dim=1).long()

    def prefill(self) -> Tensor:
        return self._forward(self.ids_BT)

    def step(self, ids_B: Tensor) -> Tensor:
        self.mask_BK = torch.cat([self.mask_BK, self.mask_BK.new_ones(len(ids_B), 1)], dim=1)
        return self._forward(ids_B.unsqueeze(1))

    def select(self, order: Sequence[int]) -> None:
        index = torch.tensor(list(order), device=self.model.device)
        self.cache.batch_select_indices(index)
        self.mask_BK = self.mask_BK[index]

    def _forward(self, ids_BT: Tensor) -> Tensor:
        positions_BK = (self.mask_BK.cumsum(-1) - 1).clamp_(min=0)
        output = self.model(
            input_ids=ids_BT,
            position_ids=positions_BK[:, -ids_BT.shape[1] :],
            attention_mask=self.mask_BK,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=last_place(ids_BT),
        )
        logits_B1V: Tensor = output.logits
        return logits_B1V[:, -1]


class PlainPrefix:
    """A prefix in transformers' own cache, copied for each batch."""

    def __init__(self, ids: Sequence[int], cache: DynamicCache) -> None:
        self.ids = tuple(ids)
        self._cache = cache

    def __len__(self) -> int:
        return len(self.ids)

    def expand(self, rows: int) -> DynamicCache:
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


def read_prefix(model: PreTrainedModel, ids: Sequence[int]) -> Shared:
    """Run a prefix through the model once, for slot sessions."""
    session = SlotSession(model, None, [ids], new_tokens=0)
    session.prefill()
    return session.cache.share(ids, model.dtype)


def read_plain_prefix(model: PreTrainedModel, ids: Sequence[int]) -> PlainPrefix:
    """Run a prefix through the model once, for plain sessions."""
    session = PlainSession(model, None, [ids])
    session.prefill()
    return PlainPrefix(ids, session.cache)


def last_place(ids_BT: Tensor) -> Tensor:
    """Return which positions need scores: the last.

    As an index and not as the count 1: the model then gathers the hidden states instead of slicing them, and torch
    multiplies a slice with the output head by copying the head's weight once per row (13 s and 2 GB for 32 rows here).
    """
    return torch.tensor([ids_BT.shape[1] - 1], device=ids_BT.device)


def pad_left(own: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids [B, T] padded on the left with 0, and the number of pads per row [B]."""
    longest = max(len(ids) for ids in own)
    padded = [[0] * (longest - len(ids)) + list(ids) for ids in own]
    pads = [longest - len(ids) for ids in own]
    return torch.tensor(padded, device=device), torch.tensor(pads, device=device)
