"""Turn conversations into tokens, with the one render function that training, evaluation and serving share.

`encode_row` gives the tokens of a row and the mask of what is trained: each answer from where the generation prompt
ends up to and including the template's end token. `encode_prompt` gives what generation feeds. Both are made of the
same text: the prompt of an answer is the very prefix that was trained. Special tokens written in somebody's text stay
text. Rows are not read, cut or packed here.

Choices that are told and not hidden:

- A tokenizer without a chat template (a base model) gets `PLAIN`: `User: … / Assistant: …` with the end-of-text token
  after each answer. It needs no tokens that a base model has never seen. `Renderer.template` says so.
- A template that has no system role (it refuses or drops it) gets the system text at the head of the first user turn.
- `strftime_now` gives one fixed day (1 January 2025), so that a row has the same tokens tomorrow.

    renderer = Renderer(tokenizer)
    encoded = renderer.encode_row(row)
    ids = renderer.encode_prompt(row.messages[:-1])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from luthier.ground.errors import BadInput
from luthier.ground.hashes import key_of
from luthier.rows.protect import protect, unprotect
from luthier.rows.sandbox import Job, TemplateFault, try_render
from luthier.rows.spans import End, Span, end_after, find_answer, find_between
from luthier.rows.tokens import Tokens
from luthier.rows.types import Encoded, Message, Row

PLAIN = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{ message.content + '\\n\\n' }}"
    "{%- elif message.role == 'assistant' -%}{{ 'Assistant: ' + message.content + eos_token + '\\n' }}"
    "{%- else -%}{{ 'User: ' + message.content + '\\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)

TEXTS = "{%- for message in messages -%}{{ message.content + '\\n' }}{%- endfor -%}"

_USER, _ANSWER, _SYSTEM = "quinceuser", "quinceanswer", "quincesystem"  # words that no template treats specially


class RowRefused(BadInput):
    """One row cannot be rendered or masked; `kind` counts it: template_refused, mask_mismatch, empty_row."""

    def __init__(self, kind: str, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.kind = kind


class Renderer:
    """A tokenizer and its chat template.

    Args:
        tokenizer: a fast tokenizer of `transformers`.
        chat_template: a template to use instead of the tokenizer's own.
        stop_ids: more tokens that end an answer (the model's generation config).

    Attributes:
        template: where the template comes from, for people.
        chat_template: its source, to be kept with an adapter.
        end_token: the token after each answer, or None if the template writes none.
        end_ids: the tokens at which generation stops.
        warnings: what a person should know about this template.
        key: hash of all that decides how a conversation becomes tokens.

    Raises:
        BadInput: the tokenizer is not usable, or the template is malicious, broken, or renders no answer.
    """

    def __init__(self, tokenizer: Any, *, chat_template: str | None = None, stop_ids: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.tokens = Tokens(tokenizer)
        self.warnings: list[str] = []
        self.template, self.chat_template = self._choose(chat_template)
        self._variables = self.tokens.names
        self.key = key_of(["render-1", self.chat_template, self._variables, self.tokens.controls])
        self._system_in_user = False
        self._header = ""
        self._end = self._probe()
        self.end_token = self._end.token
        ends = {self.tokens.id_of(self.end_token), self.tokens.eos_id, *stop_ids}
        self.end_ids = frozenset(token for token in ends if token is not None)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return the text of a conversation, exactly as it is tokenised."""
        return self._texts([(messages, add_generation_prompt)], None)[0]

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens that ask for the next answer."""
        if not messages or messages[-1].role == "assistant":
            raise BadInput("a prompt must end with a user's turn", fix="leave the answer out")
        guarded = protect(messages, self.tokens.controls_pattern)
        text, literals = unprotect(self._texts([(guarded.messages, True)], None)[0], guarded)
        return self.tokens.encode(text, literals)

    def encode_row(self, row: Row, *, train: Literal["all", "last"] = "all") -> Encoded:
        """Return the tokens of a row and the mask of what is trained.

        A conversation trains each answer (`train="last"`: the last one) with its end token; raw text trains every
        token but the first, and the end-of-text token.

        Raises:
            RowRefused: the template refuses the row, or its answers cannot be found again in what it renders.
        """
        if row.messages is None:
            return self._encode_text(row)
        answers = [i for i, message in enumerate(row.messages) if message.role == "assistant"]
        chosen = answers if train == "all" else answers[-1:]
        guarded = protect(row.messages, self.tokens.controls_pattern)
        jobs = [(guarded.messages, False), *((guarded.messages[:i], True) for i in chosen)]
        texts = [unprotect(text, guarded) for text in self._texts(jobs, row.place)]
        (text, literals), prompts = texts[0], [prompt for prompt, _ in texts[1:]]
        spans = self._spans(row, chosen, text, prompts)
        return self._assemble(row, text, literals, spans)

    # -- the template --

    def _choose(self, given: str | None) -> tuple[str, str]:
        if given is not None:
            return "given chat template", given
        own = getattr(self.tokenizer, "chat_template", None)
        if isinstance(own, dict):
            own = own.get("default")
        if own:
            return "chat template of the model", str(own)
        if self.tokens.eos_id is None:
            raise BadInput(
                "this tokenizer has neither a chat template nor an end-of-text token", fix="choose another model"
            )
        self.warnings.append(
            'the model has no chat template: conversations are written as plain text ("User: … / Assistant: …")'
        )
        return "plain text", ("{{- bos_token -}}" if self.tokens.adds_bos else "") + PLAIN

    def _probe(self) -> End:
        """Learn how the template frames an answer, from three small conversations."""
        user, answer, system = Message("user", _USER), Message("assistant", _ANSWER), Message("system", _SYSTEM)
        whole, bare, asking, with_system = self._try(
            [([user, answer], False), ([user], False), ([user], True), ([system, user], True)]
        )
        for result in (whole, bare, asking):
            if isinstance(result, TemplateFault):
                raise BadInput(result.sentence, where="chat template", fix="use a model or a template that you trust")
        assert isinstance(whole, str) and isinstance(bare, str) and isinstance(asking, str)
        if _ANSWER not in whole or _USER not in asking:
            raise BadInput("the chat template leaves out what was said", where="chat template", fix="mend the template")
        if isinstance(with_system, TemplateFault) or _SYSTEM not in with_system:
            self._system_in_user = True
            self.warnings.append(
                "the chat template has no system role: a system text is put at the head of the first user turn"
            )
        head, tail = whole.split(_ANSWER, 1)
        if asking == bare and head.startswith(bare) and head[len(bare) :].strip():
            self._header = head[len(bare) :]  # it ignores add_generation_prompt: the answer's header is added here
        if not whole.startswith(asking + self._header):
            self.warnings.append(
                "the chat template asks for an answer with other words than stand before one in training"
            )
        self._warn_of_start(whole)
        return end_after(tail, self.tokens.controls_pattern)

    def _warn_of_start(self, whole: str) -> None:
        start = self.tokens.encode(whole)[:2]
        if len(start) == 2 and start[0] == start[1] == self.tokens.bos_id:
            self.warnings.append("the chat template writes the begin-of-text token twice")
        if self.tokens.adds_bos and start[:1] != [self.tokens.bos_id]:
            self.warnings.append(
                "the chat template writes no begin-of-text token, which this tokenizer puts before text"
            )

    def _texts(self, jobs: Sequence[tuple[Sequence[Message], bool]], place: str | None) -> list[str]:
        texts = []
        for result in self._try(jobs):
            if isinstance(result, TemplateFault):
                fix = "mend the row's turns" if result.kind == "refused" else "use a template that you trust"
                raise RowRefused("template_refused", result.sentence, where=place, fix=fix)
            texts.append(result)
        return texts

    def _try(self, jobs: Sequence[tuple[Sequence[Message], bool]]) -> list[str | TemplateFault]:
        plain: list[Job] = [(self._as_dicts(messages), asking) for messages, asking in jobs]
        results = try_render(self.key, self.chat_template, self._variables, plain)
        return [
            result + self._header if asking and isinstance(result, str) else result
            for result, (_, asking) in zip(results, jobs, strict=True)
        ]

    def _as_dicts(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        if self._system_in_user:
            messages = _merge_system(messages)
        return [{"role": message.role, "content": message.content} for message in messages]

    # -- the mask --

    def _spans(self, row: Row, chosen: Sequence[int], text: str, prompts: Sequence[str]) -> list[Span]:
        """Return the trained stretches of `text`, or refuse the row."""
        assert row.messages is not None
        spans: list[Span] = []
        for index, prompt in zip(chosen, prompts, strict=True):
            last = index == len(row.messages) - 1
            content = row.messages[index].content
            found = (
                find_answer(text, len(prompt), 0, content, self._end, whole=last) if text.startswith(prompt) else None
            )
            if found is None or (spans and found.start < spans[-1].end):
                return self._spans_by_sentinels(row, chosen, text)
            spans.append(found)
        return spans

    def _spans_by_sentinels(self, row: Row, chosen: Sequence[int], text: str) -> list[Span]:
        assert row.messages is not None
        answers = [i for i, message in enumerate(row.messages) if message.role == "assistant"]
        marks = {i: f"{_ANSWER}{number}x" for number, i in enumerate(answers)}
        marked = [Message(m.role, marks.get(i, m.content)) for i, m in enumerate(row.messages)]
        jobs = [(marked, False), *((row.messages[:i], True) for i in answers)]
        literal, *prompts = self._texts(jobs, row.place)
        pieces = _split_at(literal, list(marks.values()))
        contents = [row.messages[i].content for i in answers]
        spans = find_between(text, pieces, contents, prompts, self._end) if pieces else None
        if spans is None:
            raise _mismatch(row, "an answer cannot be found again in what the chat template renders")
        return [spans[answers.index(i)] for i in chosen]

    def _assemble(self, row: Row, text: str, literals: Sequence[tuple[int, int]], spans: Sequence[Span]) -> Encoded:
        """Tokenise piece by piece, cut at the spans' ends, so that no token lies half in a target."""
        ids: list[int] = []
        target: list[bool] = []
        cursor = 0
        for span in spans:
            for start, end, trained in ((cursor, span.start, False), (span.start, span.end, True)):
                piece = self.tokens.encode(text, literals, start, end)
                ids += piece
                target += [trained] * len(piece)
                if trained and not self.tokens.spells(piece, text[start:end]):
                    raise _mismatch(row, "the trained tokens do not decode back to the answer")
            cursor = self.tokens.swallow(text, span.end)
        rest = self.tokens.encode(text, literals, cursor, len(text))
        return _encoded(row, ids + rest, target + [False] * len(rest))

    def _encode_text(self, row: Row) -> Encoded:
        ids = self.tokens.encode_document(row.text or "")
        if not ids:
            raise RowRefused("empty_row", "the text has no tokens", where=row.place, fix="delete the row")
        return _encoded(row, ids, [True] * len(ids))


def text_renderer(tokenizer: Any) -> Renderer:
    """Return a renderer for a model that reads texts and writes nothing, and so has no template."""
    renderer = Renderer(tokenizer, chat_template=TEXTS)
    renderer.template = "none: each text alone"
    renderer.warnings.clear()  # they are of templates
    return renderer


def _encoded(row: Row, ids: Sequence[int], target: Sequence[bool]) -> Encoded:
    target_T = np.array(target, dtype=np.bool_)
    target_T[:1] = False  # nothing stands before the first token from which it could be predicted
    return Encoded(np.array(ids, dtype=np.int64), target_T, row.place)


def _mismatch(row: Row, what: str) -> RowRefused:
    return RowRefused("mask_mismatch", what, where=row.place, fix="look at the row with this model's template")


def _merge_system(messages: Sequence[Message]) -> list[Message]:
    """Put system texts at the head of the first user turn."""
    system = "\n\n".join(message.content for message in messages if message.role == "system" and message.content)
    rest = [message for message in messages if message.role != "system"]
    first = next((i for i, message in enumerate(rest) if message.role == "user"), None)
    if system and first is not None:
        rest[first] = Message("user", f"{system}\n\n{rest[first].content}")
    return rest


def _split_at(text: str, marks: Sequence[str]) -> list[str]:
    """Split at each mark in order; an empty list when one does not occur exactly once."""
    pieces = []
    for mark in marks:
        if text.count(mark) != 1:
            return []
        before, text = text.split(mark)
        pieces.append(before)
    return [*pieces, text]
