"""Read a chat log in plain text: turns that begin with a speaker's name and a colon.

    User: My wheel is broken.
    Assistant: Please send a picture.

Lines without a speaker continue the turn. A line of dashes or equals signs separates conversations; a log without such
lines is cut before each user turn that follows an answer, so that every exchange becomes a row.

    >>> [m.role for m in parse_chat_log("Customer: hi\\nAgent: hello", "log.txt")[0].messages]
    ['user', 'assistant']
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from luthier.rows.types import Message, Row

_USER = ("user", "human", "customer", "client", "question", "q", "me", "caller", "visitor")
_ASSISTANT = ("assistant", "bot", "agent", "support", "ai", "gpt", "answer", "a", "operator", "helpdesk", "chatbot")
_TURN = re.compile(
    rf"\s*(?:\[[^\]]*\]\s*)?({'|'.join((*_USER, *_ASSISTANT, 'system'))})\s*:\s*(.*)", re.IGNORECASE | re.DOTALL
)
_BREAK = re.compile(r"\s*[-=*_]{3,}\s*")


def parse_chat_log(text: str, name: str) -> list[Row]:
    """Return the conversations of a log; those without an answer are left out. Empty if the text is no chat log."""
    lines = text.replace("\r\n", "\n").split("\n")
    blocks: list[list[tuple[int, str, list[str]]]] = [[]]
    for number, line in enumerate(lines, 1):
        turn = _TURN.fullmatch(line)
        if turn:
            blocks[-1].append((number, _role(turn[1]), [turn[2]]))
        elif _BREAK.fullmatch(line):
            blocks.append([])
        elif blocks[-1]:
            blocks[-1][-1][2].append(line)
    if len([block for block in blocks if block]) == 1:
        blocks = _exchanges([turn for block in blocks for turn in block])
    return [row for block in blocks if (row := _conversation(block, name)) is not None]


def looks_like_chat_log(text: str) -> bool:
    """Tell whether both a user and an assistant speak, and most paragraphs begin with a speaker."""
    turns = [turn for line in text.split("\n") if (turn := _TURN.fullmatch(line))]
    roles = {_role(turn[1]) for turn in turns}
    paragraphs = [line for line in text.split("\n") if line.strip()]
    return {"user", "assistant"} <= roles and len(turns) >= 0.2 * len(paragraphs)


def _role(speaker: str) -> str:
    word = speaker.lower()
    return "user" if word in _USER else "system" if word == "system" else "assistant"


def _exchanges(turns: Sequence[tuple[int, str, list[str]]]) -> list[list[tuple[int, str, list[str]]]]:
    blocks: list[list[tuple[int, str, list[str]]]] = []
    for turn in turns:
        if not blocks or (turn[1] != "assistant" and blocks[-1][-1][1] == "assistant"):
            blocks.append([])
        blocks[-1].append(turn)
    return blocks


def _conversation(block: Sequence[tuple[int, str, list[str]]], name: str) -> Row | None:
    messages: list[Message] = []
    for _, role, lines in block:
        content = "\n".join(lines).strip()
        if messages and messages[-1].role == role:
            content = f"{messages.pop().content}\n{content}".strip()
        messages.append(Message(role, content))
    while messages and messages[-1].role != "assistant":
        messages.pop()
    talk = [message.role for message in messages if message.role != "system"]
    if not talk or talk[0] != "user" or not all(message.content for message in messages):
        return None
    place = f"{name}:{block[0][0]}"
    return Row(id=place, place=place, messages=tuple(messages))
