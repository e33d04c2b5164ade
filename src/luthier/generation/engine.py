"""Batched decoding with any causal language model of transformers: greedy or sampled, results in input order.

Prompts are sorted by length into batches; the longest common beginning of a batch is run through the model once and
shared by its rows; finished rows leave the batch. A row's answer depends on its prompt (and, when sampled, on its index
and the seed), not on its batch mates. Nothing is kept between calls, so keys and values of one adapter never meet
another. It does not render prompts or score answers.

    generator = Generator(model, tokenizer, end_ids=renderer.end_ids)
    answers = generator.generate([renderer.encode_prompt(messages)], Settings(max_new_tokens=64))
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from luthier.generation.sampling import choose, uniform_numbers
from luthier.generation.sessions import (
    PlainPrefix,
    PlainSession,
    Session,
    SlotSession,
    read_plain_prefix,
    read_prefix,
)
from luthier.generation.settings import Settings
from luthier.generation.slots import NotSharable, Shared, can_share, has_full_attention, kept_dtype
from luthier.ground.events import Tell, silent

Finish = Literal["end", "stop", "length", "failed"]

CACHE_BYTES = 1 << 30  # bound of the keys and values of one batch's own tokens
WORTH_SHARING = 16  # shorter common beginnings are not shared
WORTH_EXTENDING = 64  # a batch reuses a prefix that is at most this much shorter than its own common beginning


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: the answer without end token and stop string; None when it failed.
        ids: the tokens drawn, without the end token; empty for a remote endpoint.
        prompt_tokens: tokens of the prompt.
        output_tokens: tokens drawn, the end token included.
        seconds: wall time from the start of its batch until its own last token: what a client in this batch waits.
        finish: the end token, a stop string, the length limit, or a failure.
        cause: why it failed.
    """

    text: str | None
    ids: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    seconds: float
    finish: Finish
    cause: str | None = None


def failed_generation(cause: str, *, prompt_tokens: int = 0, seconds: float = 0.0) -> Generation:
    """Return the answer of an item that could not be answered."""
    return Generation(None, (), prompt_tokens, 0, seconds, "failed", cause)


class Generator:
    """Writes answers with one model.

    Args:
        model: a causal model in evaluation or training mode (it answers in evaluation mode and is put back).
        end_ids: tokens that end an answer.
        share: False takes the plain way even where the fast one would do (for tests and doubts).
        window: tokens up to which it answers (default: the model's own window).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Iterable[int],
        *,
        share: bool = True,
        window: int | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self.share = share and can_share(model)
        self._window = window
        self._full_attention = has_full_attention(model)
        config = model.config.get_text_config(decoder=True)
        self.row_token_bytes = token_bytes(config, kept_dtype(model.device, model.dtype))

    @property
    def context(self) -> int | None:
        """Tokens up to which it answers: the model's window at present, which an adapter may lengthen; None: any."""
        own = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        return self._window or own

    def generate(self, prompts: Sequence[Sequence[int]], settings: Settings, tell: Tell = silent) -> list[Generation]:
        """Answer each prompt (token ids); a prompt that cannot be answered fails alone, with a cause."""
        done: dict[int, Generation] = {}
        for row, prompt in enumerate(prompts):
            cause = self._unanswerable(prompt)
            if cause:
                done[row] = failed_generation(cause, prompt_tokens=len(prompt))
        batches = self._plan(prompts, [row for row in range(len(prompts)) if row not in done], settings)
        with torch.inference_mode(), _evaluation(self.model):
            prefix: Shared | PlainPrefix | None = None
            for batch in batches:
                started = time.perf_counter()
                prefix = self._prefix(prompts[batch.rows[0]][: batch.shared], prefix)
                done.update(self._answer_batch(batch, prompts, prefix, settings, started))
                tell({"kind": "answers", "done": len(done), "total": len(prompts)})
        return [done[row] for row in range(len(prompts))]

    # -- planning --------------------------------------------------------------------------------------------------

    def _unanswerable(self, prompt: Sequence[int]) -> str | None:
        if not prompt:
            return "the prompt is empty"
        if self.context is not None and len(prompt) >= self.context:
            return f"the prompt has {len(prompt)} tokens and the model's context holds {self.context}"
        return None

    def _plan(self, prompts: Sequence[Sequence[int]], rows: list[int], settings: Settings) -> list[_Batch]:
        """Sort rows by length, longest first, into batches that keep the size and memory bounds."""
        if not rows:
            return []
        everywhere = self._common([prompts[row] for row in rows])
        batches: list[_Batch] = []
        ordered = sorted(rows, key=lambda row: (-len(prompts[row]), row))
        while ordered:
            own = len(prompts[ordered[0]]) - everywhere + settings.max_new_tokens
            size = max(1, min(settings.batch_size, CACHE_BYTES // (own * self.row_token_bytes)))
            taken, ordered = ordered[:size], ordered[size:]
            here = self._common([prompts[row] for row in taken])
            shared = here if here - everywhere >= WORTH_EXTENDING else everywhere
            batches.append(_Batch(taken, shared if shared >= WORTH_SHARING else 0))
        return batches

    def _common(self, prompts: Sequence[Sequence[int]]) -> int:
        """Return the tokens that several prompts share, as far as the model's attention allows."""
        return common_beginning(prompts) if len(prompts) > 1 and self._full_attention else 0

    def _prefix(self, ids: Sequence[int], last: Shared | PlainPrefix | None) -> Shared | PlainPrefix | None:
        """Return the prefix, computed unless the batch before had the same one."""
        if not ids:
            return None
        if last is not None and last.ids == tuple(ids) and isinstance(last, Shared) == self.share:
            return last
        try:
            return read_prefix(self.model, ids) if self.share else read_plain_prefix(self.model, ids)
        except NotSharable:
            self.share = False
            return read_plain_prefix(self.model, ids)

    # -- decoding --------------------------------------------------------------------------------------------------

    def _answer_batch(
        self,
        batch: _Batch,
        prompts: Sequence[Sequence[int]],
        prefix: Shared | PlainPrefix | None,
        settings: Settings,
        started: float,
    ) -> dict[int, Generation]:
        limits = [self._limit(len(prompts[row]), settings) for row in batch.rows]
        answers = [_Answer(row, len(prompts[row]), limit) for row, limit in zip(batch.rows, limits, strict=True)]
        session, logits_BV = self._open(prefix, [prompts[row][batch.shared :] for row in batch.rows], max(limits))
        uniform_BS = None if settings.greedy else uniform_numbers(settings.seed, batch.rows, max(limits))
        active = list(range(len(answers)))  # session row -> index into answers
        step = 0
        while active:
            drawn_B = None if uniform_BS is None else uniform_BS[active, step]
            ids_B = choose(logits_BV, settings, drawn_B)
            finite = logits_BV.gather(-1, ids_B.unsqueeze(-1)).isfinite().squeeze(-1).tolist()
            for place, token, good in zip(active, ids_B.tolist(), finite, strict=True):
                self._append(answers[place], token, good, settings, started)
            order = _leave([answers[place].finish is None for place in active])
            active = [active[old] for old in order]
            step += 1
            if active:
                if len(order) < len(ids_B):
                    session.select(order)
                logits_BV = session.step(ids_B[order])
        return {answer.row: self._finish(answer, settings) for answer in answers}

    def _limit(self, prompt_tokens: int, settings: Settings) -> int:
        """Most new tokens of a row: the context may hold fewer than the settings allow."""
        room = settings.max_new_tokens if self.context is None else self.context - prompt_tokens
        return min(settings.max_new_tokens, room)

    def _open(
        self, prefix: Shared | PlainPrefix | None, own: list[Sequence[int]], new_tokens: int
    ) -> tuple[Session, Tensor]:
        if self.share and not isinstance(prefix, PlainPrefix):
            session: Session = SlotSession(self.model, prefix, own, new_tokens)
            try:
                return session, session.prefill()
            except NotSharable:  # only without a prefix: reading one would have found out
                self.share = False
        session = PlainSession(self.model, prefix if isinstance(prefix, PlainPrefix) else None, own)
        return session, session.prefill()

    def _append(self, answer: _Answer, token: int, finite: bool, settings: Settings, started: float) -> None:
        answer.output_tokens += 1
        if not finite:
            answer.finish, answer.cause = "failed", "the model's scores are not finite numbers"
        elif token in self.end_ids:
            answer.finish = "end"
        else:
            answer.ids.append(token)
            if settings.stop and self._stopped(answer.ids, settings.stop):
                answer.finish = "stop"
            elif answer.output_tokens >= answer.limit:
                answer.finish = "length"
        if answer.finish is not None:
            answer.seconds = time.perf_counter() - started

    def _stopped(self, ids: list[int], stop: tuple[str, ...]) -> bool:
        """Say whether the newest tokens complete a stop string; a token holds at least one byte of it."""
        tail = self._decode(ids[-max(len(text.encode()) for text in stop) - 4 :])
        return any(text in tail for text in stop)

    def _finish(self, answer: _Answer, settings: Settings) -> Generation:
        if answer.finish == "failed":
            return failed_generation(answer.cause, prompt_tokens=answer.prompt_tokens, seconds=answer.seconds)
        text = self._decode(answer.ids)
        cut = min((text.find(stop) for stop in settings.stop if stop in text), default=len(text))
        return Generation(
            text=text[:cut],
            ids=tuple(answer.ids),
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.output_tokens,
            seconds=answer.seconds,
            finish=answer.finish or "length",
        )

    def _decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


@dataclass(frozen=True)
class _Batch:
    rows: list[int]
    shared: int  # tokens of the common beginning that the rows share


@dataclass
class _Answer:
    """One row while it is being written."""

    row: int
    prompt_tokens: int
    limit: int
    ids: list[int] = field(default_factory=list)
    output_tokens: int = 0
    seconds: float = 0.0
    finish: Finish | None = None
    cause: str = ""


def common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with, leaving at least one own token to each."""
    first, last = min(map(list, prompts)), max(map(list, prompts))  # the two that differ soonest
    differ = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    common = next(differ, min(len(first), len(last)))
    return max(0, min(common, min(len(prompt) for prompt in prompts) - 1))


def _leave(stays: list[bool]) -> list[int]:
    """Return which old row each new row is, after the finished ones left: the last rows fill the holes."""
    order = list(range(len(stays)))
    place = 0
    while place < len(order):
        if stays[order[place]]:
            place += 1
        else:
            mover = order.pop()
            if place < len(order):
                order[place] = mover
    return order


def token_bytes(config: object, dtype: torch.dtype) -> int:
    """Bytes of keys and values that one token of one row holds in all layers."""
    heads = getattr(config, "num_attention_heads", 1)
    width = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    layers = getattr(config, "num_hidden_layers", 1)
    return max(1, 2 * int(layers) * int(kv_heads) * int(width) * dtype.itemsize)


@contextmanager
def _evaluation(model: PreTrainedModel) -> Iterator[None]:
    """Put the model into evaluation mode and, afterwards, each module back to its own mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
