"""Ask a remote OpenAI-compatible chat endpoint: in parallel, with time-outs and patient retries.

One item's failure is that item's answer (`finish == "failed"`, with a cause), never an exception. The key is read from
the environment when it is needed; it is sent in one header, and nowhere written, logged or shown.

    answers = Endpoint(spec).chat([[Message("user", "2+2?")]], Settings(max_new_tokens=8))
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import httpx

from luthier.generation.engine import Finish, Generation, failed_generation
from luthier.generation.settings import Settings
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.spec import EndpointSpec
from luthier.ground.strict_json import parse_json
from luthier.rows.shape_fault import ShapeFault
from luthier.rows.tool_text import as_dicts
from luthier.rows.tools import calls_of, list_of
from luthier.rows.types import Message

ATTEMPTS = 5
FIRST_PAUSE_S = 0.5  # doubles with each attempt
MOST_REPLY_BYTES = 16 << 20
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_FINISHES: dict[object, Finish] = {"length": "length", "stop": "end"}


class Endpoint:
    """One model behind an HTTP endpoint.

    Raises:
        BadInput: the URL is not http(s), or the variable that should hold the key is not set.
    """

    def __init__(self, spec: EndpointSpec, *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        url = httpx.URL(spec.url)
        if url.scheme not in ("http", "https") or not url.host:
            raise BadInput(f'the endpoint "{spec.url}" is not an http(s) address', fix="set endpoint.url")
        if spec.key_env and not os.environ.get(spec.key_env):
            raise BadInput(f"the environment variable {spec.key_env} holds no key", fix=f"export {spec.key_env}=…")
        if spec.key_env and not os.environ[spec.key_env].isascii():
            raise BadInput(f"the key in {spec.key_env} is not plain ASCII", fix=f"export {spec.key_env}=… anew")
        self.spec = spec
        self.first_pause_s = first_pause_s
        self._address = spec.url.rstrip("/") + "/chat/completions"
        self._loopback = url.host in _LOOPBACK

    def chat(
        self,
        conversations: Sequence[Sequence[Message]],
        settings: Settings,
        tell: Tell = silent,
        *,
        tools: Sequence[str | None] = (),
    ) -> list[Generation]:
        """Answer each conversation, in input order; calls of tools become lines of JSON.

        Args:
            tools: what may be called in each conversation, as JSON text (default: nothing).

        Raises:
            BadInput: not a single request succeeded.
        """
        answers: dict[int, Generation] = {}
        with httpx.Client(trust_env=not self._loopback) as client, ThreadPoolExecutor(self.spec.parallel) as pool:
            told = zip(conversations, tools or [None] * len(conversations), strict=True)
            waiting = {pool.submit(self._ask, client, *one, settings): place for place, one in enumerate(told)}
            try:
                for future in as_completed(waiting):
                    answers[waiting[future]] = future.result()
                    tell({"kind": "answers", "done": len(answers), "total": len(conversations)})
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self._refuse_silence(answers)
        return [answers[place] for place in range(len(conversations))]

    def price(self, prompt_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens cost, in the currency of the task's prices."""
        return (prompt_tokens * self.spec.prompt_price + output_tokens * self.spec.output_price) / 1e6

    def _ask(
        self, client: httpx.Client, conversation: Sequence[Message], tools: str | None, settings: Settings
    ) -> Generation:
        """Ask until there is an answer, a fault that will not pass, or no more time."""
        started = time.perf_counter()
        deadline = started + self.spec.timeout_s
        request = self._request(conversation, tools, settings)
        fault = _Fault("no time to ask")
        for attempt in range(ATTEMPTS):
            try:
                return self._read(self._post(client, request, deadline), started)
            except _Fault as error:
                fault = error
            pause_s = max(self.first_pause_s * 2**attempt, fault.wait_s)
            if not fault.passing or attempt == ATTEMPTS - 1 or time.perf_counter() + pause_s >= deadline:
                break
            time.sleep(pause_s)
        return failed_generation(self._without_key(fault.what), seconds=time.perf_counter() - started)

    def _request(self, conversation: Sequence[Message], tools: str | None, settings: Settings) -> dict[str, object]:
        request: dict[str, object] = {
            "model": self.spec.model,
            "messages": as_dicts(conversation, arguments_are_objects=False, no_text=None),
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
        }
        request |= {"tools": list_of(tools)} if tools is not None else {}
        if not settings.greedy:
            request |= {"top_p": settings.top_p, "seed": settings.seed}
            request |= {"top_k": settings.top_k} if settings.top_k else {}
        return request | ({"stop": list(settings.stop)} if settings.stop else {})

    def _post(self, client: httpx.Client, request: dict[str, object], deadline: float) -> bytes:
        """Send one request and return the body; the whole of it must arrive before the deadline."""
        try:
            with client.stream(
                "POST", self._address, json=request, headers=self._headers(), timeout=_left(deadline)
            ) as response:
                body = b""
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MOST_REPLY_BYTES:
                        raise _Fault("the reply is too long")
                    _left(deadline)
        except httpx.TimeoutException:
            raise _Fault(f"no answer within {self.spec.timeout_s:g} s") from None
        except httpx.RequestError as error:
            raise _Fault(f"the connection failed ({type(error).__name__})", passing=True) from None
        if response.status_code != 200:
            raise self._status_fault(response, body)
        return body

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _key(self) -> str:
        return os.environ.get(self.spec.key_env, "") if self.spec.key_env else ""

    def _status_fault(self, response: httpx.Response, body: bytes) -> _Fault:
        status = response.status_code
        words = " ".join(body[:2000].decode("utf-8", "replace").split())[:200]
        wait = response.headers.get("retry-after", "")
        return _Fault(
            f"the endpoint answered {status}{f': {words}' if words else ''}",
            passing=status == 429 or status >= 500,
            wait_s=float(wait) if wait.isdigit() else 0.0,
        )

    def _read(self, body: bytes, started: float) -> Generation:
        try:
            reply = parse_json(body.decode())
        except (BadInput, UnicodeDecodeError):
            raise _Fault("the reply is not JSON") from None
        choice = _first_choice(reply)
        message = choice.get("message")
        text = _text_of(message) if isinstance(message, dict) else None
        if text is None:
            raise _Fault("the reply holds no text")
        usage = reply.get("usage") if isinstance(reply, dict) else None
        return Generation(
            text=text,
            ids=(),
            prompt_tokens=_whole_number(usage, "prompt_tokens"),
            output_tokens=_whole_number(usage, "completion_tokens"),
            seconds=time.perf_counter() - started,
            finish=_FINISHES.get(choice.get("finish_reason"), "end"),
        )

    def _refuse_silence(self, answers: dict[int, Generation]) -> None:
        causes = Counter(answer.cause for answer in answers.values() if answer.finish == "failed")
        if answers and sum(causes.values()) == len(answers):
            cause = causes.most_common(1)[0][0]
            host = httpx.URL(self.spec.url).netloc.decode()
            raise BadInput(
                f"the endpoint answered none of {len(answers)} requests ({cause})",
                where=host,
                fix="check endpoint.url, endpoint.model and the key",
            )

    def _without_key(self, text: str) -> str:
        key = self._key()
        return text.replace(key, "***") if key else text


class _Fault(Exception):
    """One attempt failed; `passing` says that it may succeed later, not before `wait_s`."""

    def __init__(self, what: str, *, passing: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.what = what
        self.passing = passing
        self.wait_s = wait_s


def _left(deadline: float) -> float:
    left_s = deadline - time.perf_counter()
    if left_s <= 0:
        raise httpx.ReadTimeout("the deadline has passed")
    return left_s


def _text_of(message: Mapping[str, object]) -> str | None:
    """Return what a reply says, with its calls as lines of JSON, or None if it says and calls nothing."""
    try:
        calls = calls_of(message.get("tool_calls"), "the reply")
    except ShapeFault as fault:
        raise _Fault(fault.message) from None
    text = message.get("content")
    if not isinstance(text, str):
        return Message("assistant", "", tool_calls=calls).written if calls else None
    return Message("assistant", text, tool_calls=calls).written


def _first_choice(reply: object) -> dict[str, object]:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _Fault("the reply holds no choice")
    return choices[0]


def _whole_number(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
