"""Put a row, a prompt and retrieved passages together: the one function that training and every system use.

The order is: system (instruction, then the row's own system text), worked examples as turns, the row's earlier turns,
and last the user's turn with the passages before the input. The input stands last because that is where small models
look. What a tool gave after that turn stays behind it, and the row's tools stay the row's. It renders nothing and
counts no tokens.

    >>> row = Row("1", "t:1", (Message("user", "hi"), Message("assistant", "yo")))
    >>> [m.content for m in compose(row, Prompt("Greet."), ["Yo is a greeting."], with_answer=False).messages]
    ['Greet.', 'Context:\\nYo is a greeting.\\n\\nInput: hi']
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.rows.types import Message, Row


@dataclass(frozen=True)
class Prompt:
    """An instruction and worked examples."""

    instruction: str = ""
    examples: tuple[Row, ...] = ()


def compose(row: Row, prompt: Prompt, passages: Sequence[str] = (), *, with_answer: bool) -> Row:
    """Return a new row whose messages are what the model sees.

    A row is never its own worked example: an example with the row's id and place is left out. Rows of raw text are
    returned unchanged. A text with a gap keeps it, and gets the turns in which it is asked for in words: the text with
    `<gap>` in its place, answered by what stood there.

    Args:
        passages: retrieved texts, best first (they are shown best last).
        with_answer: end with the row's answer (training), or with the question (generation).
    """
    if row.gap is not None and row.messages is None:
        row = dataclasses.replace(row, messages=(Message("user", row.input), Message("assistant", row.reference)))
    if row.messages is None:
        return row
    turns = [message for message in row.messages if message.role != "system"]
    answer = [turns.pop()] if turns and turns[-1].role == "assistant" else []
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is not None:
        turns[last] = dataclasses.replace(turns[last], content=_with_passages(turns[last].content, passages))
    messages = [*_system(row, prompt), *_examples(row, prompt), *turns, *(answer if with_answer else [])]
    return dataclasses.replace(row, messages=tuple(messages))


def _system(row: Row, prompt: Prompt) -> list[Message]:
    own = [message.content for message in row.messages or () if message.role == "system"]
    texts = [text.strip() for text in (prompt.instruction, *own)]
    joined = "\n\n".join(text for text in texts if text)
    return [Message("system", joined)] if joined else []


def _examples(row: Row, prompt: Prompt) -> list[Message]:
    """Return each example from its last question on; what it answers is shown, and not trained."""
    messages = []
    for example in prompt.examples:
        if (example.id, example.place) != (row.id, row.place):
            messages += [dataclasses.replace(turn, train=False) for turn in _last_exchange(example)]
    return messages


def _last_exchange(example: Row) -> list[Message]:
    turns = [turn for turn in example.messages or () if turn.role != "system"]
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        return [Message("user", example.input), Message("assistant", example.reference)]
    return turns[last:]


def _with_passages(text: str, passages: Sequence[str]) -> str:
    """Put the passages before the input, the best one last: small models take what they read last.

    Measured on 24 dev tickets with a 135M model and two worked examples: answers with the right facts rose from none
    (best first, numbered) to a quarter (best last, no numbers).
    """
    if not passages:
        return text
    lines = "\n".join(passage.strip() for passage in reversed(passages))
    return f"Context:\n{lines}\n\nInput: {text}"
