"""Turn conversations into tokens, with the one render function that training, evaluation and serving share.

`encode_row` gives the tokens of a row and the mask of what is trained: each answer from where the generation prompt
ends up to and including the template's end token. `encode_prompt` gives what generation feeds. Both are made of the
same text: the prompt of an answer is the very prefix that was trained. Special tokens written in somebody's text stay
text. Rows are not read, cut or packed here.

Tools, calls and results go to the template as `transformers` hands them over. What the mask covers of a call is what
the template writes for it, up to its end token.

Choices that are told and not hidden:

- A tokenizer without a chat template (a base model) gets `PLAIN`: `User: … / Assistant: …` with the end-of-text token
  after each answer. It needs no tokens that a base model has never seen. `Renderer.template` says so.
- A template that does not know tools gets them as plain text (`luthier.rows.tool_text`): their list in the system text,
  calls as lines of JSON.
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
from luthier.rows.answers import SENTINEL, Answers, Asked, mismatch
from luthier.rows.answers import RowRefused as RowRefused
from luthier.rows.protect import protect, unprotect
from luthier.rows.sandbox import Job, TemplateFault, try_render
from luthier.rows.spans import End, Span, end_after, turn_between
from luthier.rows.tokens import Tokens
from luthier.rows.tool_probe import ToolUse, probe_tools
from luthier.rows.tool_text import as_dicts, written_out
from luthier.rows.tools import list_of
from luthier.rows.types import Encoded, Message, Row

PLAIN = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{ message.content + '\\n\\n' }}"
    "{%- elif message.role == 'assistant' -%}{{ 'Assistant: ' + message.content + eos_token + '\\n' }}"
    "{%- elif message.role == 'tool' -%}{{ 'Tool: ' + message.content + '\\n' }}"
    "{%- else -%}{{ 'User: ' + message.content + '\\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)

TEXTS = "{%- for message in messages -%}{{ message.content + '\\n' }}{%- endfor -%}"

_USER, _ANSWER, _SYSTEM = "quinceuser", SENTINEL, "quincesystem"  # words that no template treats specially


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
        self.key = key_of(["render-2", self.chat_template, self._variables, self.tokens.controls])
        self._system_in_user = False
        self._header = ""
        self._tools = ToolUse(native=False, has_role=True)  # until it is known
        self._end = self._probe()
        self._tools = probe_tools(lambda jobs: try_render(self.key, self.chat_template, self._variables, jobs))
        self.end_token = self._end.token
        ends = {self.tokens.id_of(self.end_token), self._end_of_calls(), self.tokens.eos_id, *stop_ids}
        self.end_ids = frozenset(token for token in ends if token is not None)

    def with_tokenizer(self, tokenizer: Any) -> Renderer:
        """Return the same over a tokenizer that knows more tokens; its key stays that of the template."""
        given = self.chat_template if self.template == "given chat template" else None
        other = Renderer(tokenizer, chat_template=given, stop_ids=self.end_ids)
        other.key = self.key
        return other

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False, tools: str | None = None
    ) -> str:
        """Return the text of a conversation, exactly as it is tokenised."""
        messages, tools = self._told(messages, tools)
        return self._texts([(messages, add_generation_prompt)], tools, None)[0]

    def encode_prompt(self, messages: Sequence[Message], tools: str | None = None) -> list[int]:
        """Return the tokens that ask for the next answer; `tools` is the JSON text of a list of functions."""
        if not messages or messages[-1].role == "assistant":
            raise BadInput("a prompt must end with a user's turn", fix="leave the answer out")
        messages, tools = self._told(messages, tools)
        guarded = protect(messages, self.tokens.controls_pattern, tools)
        text, literals = unprotect(self._texts([(guarded.messages, True)], guarded.tools, None)[0], guarded)
        return self.tokens.encode(text, literals)

    def encode_row(self, row: Row, *, train: Literal["all", "last"] = "all", prompt_weight: float = 0.0) -> Encoded:
        """Return the tokens of a row and the mask of what is trained.

        A conversation trains each answer (`train="last"`: the last one) with its end token; raw text trains every
        token but the first, and the end-of-text token. An answer that says `train: false` is never trained. Targets
        have the row's weight; a row of weight 0 has none.

        Args:
            prompt_weight: what stands before the trained answers, answers that are not trained excepted, becomes a
                target of this weight, relative to the answers' own.

        Raises:
            RowRefused: the template refuses the row, or its answers cannot be found again in what it renders.
        """
        if row.messages is None:
            return self._encode_text(row)
        messages, tools = self._told(row.messages, row.tools)
        answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
        wanted = {i for i in (answers if train == "all" else answers[-1:]) if messages[i].train}
        never = {i for i in answers if not messages[i].train} if prompt_weight else set()
        chosen = sorted(wanted | never)
        talk = Answers(row.place, messages, tools, self._texts, self._end, self.tokens.controls_pattern)
        text, literals, spans = talk.find(chosen)
        weights = [1.0 if i in wanted else 0.0 for i in chosen]
        return self._assemble(row, text, literals, list(zip(spans, weights, strict=True)), prompt_weight)

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
            [((user, answer), False), ((user,), False), ((user,), True), ((system, user), True)]
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

    def _end_of_calls(self) -> int | None:
        """Return the token with which the template ends a turn that calls tools, which may be another."""
        turn = turn_between("", self._tools.tail, self._end, self.tokens.controls_pattern) or ""
        return next((index for text, index in self.tokens.controls.items() if turn.endswith(text)), None)

    def _told(self, messages: Sequence[Message], tools: str | None) -> tuple[Sequence[Message], str | None]:
        """Return a conversation as the template can be told it: without tools, if it does not know them."""
        calls = tools is not None or any(message.tool_calls for message in messages)
        results = any(message.role == "tool" for message in messages)
        if not (calls or results) or self._tools.native:
            return messages, tools
        how = ["they are listed in the system text, and a call is a line of JSON"] if calls else []
        how += [] if self._tools.has_role or not results else ["a tool's result is a turn of the user"]
        warning = f"the chat template does not know tools: {'; '.join(how)}"
        if how and warning not in self.warnings:
            self.warnings.append(warning)
        return written_out(messages, tools, has_tool_role=self._tools.has_role), None

    def _texts(self, asked: Sequence[Asked], tools: str | None, place: str | None) -> list[str]:
        texts = []
        for result in self._try(asked, tools):
            if isinstance(result, TemplateFault):
                fix = "mend the row's turns" if result.kind == "refused" else "use a template that you trust"
                raise RowRefused("template_refused", result.sentence, where=place, fix=fix)
            texts.append(result)
        return texts

    def _try(self, asked: Sequence[Asked], tools: str | None = None) -> list[str | TemplateFault]:
        listed = list_of(tools) or None
        jobs = [Job(self._as_dicts(messages), asking, listed) for messages, asking in asked]
        results = try_render(self.key, self.chat_template, self._variables, jobs)
        return [
            result + self._header if job.add_generation_prompt and isinstance(result, str) else result
            for result, job in zip(results, jobs, strict=True)
        ]

    def _as_dicts(self, messages: Sequence[Message]) -> list[dict[str, object]]:
        if self._system_in_user:
            messages = _merge_system(messages)
        use = self._tools
        return as_dicts(messages, arguments_are_objects=use.arguments_are_objects, no_text=use.no_text)

    # -- the mask --

    def _assemble(
        self,
        row: Row,
        text: str,
        literals: Sequence[tuple[int, int]],
        spans: Sequence[tuple[Span, float]],
        prompt_weight: float,
    ) -> Encoded:
        """Tokenise piece by piece, cut at the spans' ends, so that no token lies half in a target.

        `spans` come with their weights: 1 is trained, 0 never. What stands before the last trained one has
        `prompt_weight`.
        """
        ids: list[int] = []
        weights: list[float] = []
        cursor = 0
        for number, (span, weight) in enumerate(spans):
            leads_on = any(later for _, later in spans[number:])
            before = prompt_weight if leads_on else 0.0
            for start, end, of_piece in ((cursor, span.start, before), (span.start, span.end, weight)):
                piece = self.tokens.encode(text, literals, start, end)
                ids += piece
                weights += [of_piece] * len(piece)
                if start == span.start and weight and not self.tokens.spells(piece, text[start:end]):
                    raise mismatch(row.place, "the trained tokens do not decode back to the answer")
            cursor = self.tokens.swallow(text, span.end)
        rest = self.tokens.encode(text, literals, cursor, len(text))
        return _encoded(row, ids + rest, weights + [0.0] * len(rest))

    def _encode_text(self, row: Row) -> Encoded:
        ids = self.tokens.encode_document(row.text or "")
        if not ids:
            raise RowRefused("empty_row", "the text has no tokens", where=row.place, fix="delete the row")
        return _encoded(row, ids, [1.0] * len(ids))


def text_renderer(tokenizer: Any) -> Renderer:
    """Return a renderer for a model that reads texts and writes nothing, and so has no template."""
    renderer = Renderer(tokenizer, chat_template=TEXTS)
    renderer.template = "none: each text alone"
    renderer.warnings.clear()  # they are of templates
    return renderer


def _encoded(row: Row, ids: Sequence[int], weights: Sequence[float]) -> Encoded:
    weight_T = np.array(weights, dtype=np.float32) * np.float32(row.weight)
    weight_T[:1] = 0.0  # nothing stands before the first token from which it could be predicted
    target_T = weight_T > 0
    weighted = bool((weight_T[target_T] != 1.0).any())
    ids_T = np.array(ids, dtype=np.int64)
    return Encoded(ids_T, target_T, row.place, weight_T=weight_T if weighted else None, origin=row.origin)


def _merge_system(messages: Sequence[Message]) -> list[Message]:
    """Put system texts at the head of the first user turn."""
    system = "\n\n".join(message.content for message in messages if message.role == "system" and message.content)
    rest = [message for message in messages if message.role != "system"]
    first = next((i for i, message in enumerate(rest) if message.role == "user"), None)
    if system and first is not None:
        rest[first] = Message("user", f"{system}\n\n{rest[first].content}")
    return rest
