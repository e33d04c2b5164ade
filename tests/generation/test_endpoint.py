"""The endpoint against a small server on this machine that misbehaves in many ways."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from luthier.generation.endpoint import ATTEMPTS, Endpoint
from luthier.generation.settings import Settings
from luthier.ground.errors import BadInput
from luthier.ground.spec import EndpointSpec
from luthier.rows.types import Message, ToolCall

Reply = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]
KEY = "sk-very-secret-1234"


def good(text: object, finish: str = "stop") -> bytes:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}).encode()


@contextmanager
def serving(answer: Callable[[str, int], Reply]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve `answer(question, nth time asked)`; yield the URL and the list of requests seen."""
    seen: list[dict[str, Any]] = []
    times: dict[str, int] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][-1]["content"]
            with lock:
                times[question] = times.get(question, 0) + 1
                seen.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                nth = times[question]
            status, content, *more = answer(question, nth)
            try:
                self.send_response(status)
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def ask(url: str, *questions: str, **spec: Any) -> list[Any]:
    endpoint = Endpoint(EndpointSpec(url=url, model="m", **spec), first_pause_s=0.01)
    return endpoint.chat([[Message("user", question)] for question in questions], Settings(max_new_tokens=7))


def test_answers_come_in_input_order_with_usage() -> None:
    def answer(question: str, nth: int) -> Reply:
        time.sleep(0.15 if question == "0" else 0.0)
        return 200, good(f"answer {question}", "length" if question == "1" else "stop")

    with serving(answer) as (url, seen):
        answers = ask(url, "0", "1", "2", "3")
    assert [a.text for a in answers] == [f"answer {n}" for n in range(4)]
    assert [a.finish for a in answers] == ["end", "length", "end", "end"]
    assert {(a.prompt_tokens, a.output_tokens) for a in answers} == {(11, 3)}
    assert answers[0].seconds >= 0.15
    assert {r["path"] for r in seen} == {"/v1/chat/completions"}
    assert all(r["model"] == "m" and r["max_tokens"] == 7 and r["temperature"] == 0.0 for r in seen)
    assert all(r["key"] is None for r in seen)


def test_tools_are_handed_over_and_calls_come_back_as_json() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}

    def answer(question: str, nth: int) -> Reply:
        message = {"role": "assistant", "content": None, "tool_calls": [call if question == "see?" else 7]}
        return 200, json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()

    earlier = Message("assistant", "", tool_calls=(ToolCall("look", '{"at":"that"}'),))
    talk = [Message("user", "x"), earlier, Message("tool", "blue", name="look"), Message("user", "see?")]
    tools = '[{"type":"function","function":{"name":"look"}}]'
    with serving(answer) as (url, seen):
        endpoint = Endpoint(EndpointSpec(url=url, model="m"), first_pause_s=0.01)
        called, broken = endpoint.chat([talk, [Message("user", "y")]], Settings(max_new_tokens=7), tools=[tools, None])
    assert called.text == '{"name":"look","arguments":{"at":"it"}}' and called.finish == "end"
    assert broken.text is None and "call 1 of the reply must be an object" in str(broken.cause)
    [request] = [r for r in seen if r["messages"][-1]["content"] == "see?"]
    assert request["tools"] == json.loads(tools) and all("tools" not in r for r in seen if r is not request)
    assert request["messages"][1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call00001", "type": "function", "function": {"name": "look", "arguments": '{"at":"that"}'}}
        ],
    }
    assert request["messages"][2]["tool_call_id"] == "call00001"


def test_requests_run_in_parallel() -> None:
    together = threading.Barrier(4, timeout=5)

    def answer(question: str, nth: int) -> Reply:
        together.wait()
        return 200, good("ok")

    with serving(answer) as (url, _):
        assert [a.text for a in ask(url, "a", "b", "c", "d", parallel=4)] == ["ok"] * 4


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ((200, b"{not json"), "the reply is not JSON"),
        ((200, b"\xff\xfe"), "the reply is not JSON"),
        ((200, b"[]"), "the reply holds no choice"),
        ((200, b'{"choices": []}'), "the reply holds no choice"),
        ((200, b'{"choices": [3]}'), "the reply holds no choice"),
        ((200, b'{"choices": [{}]}'), "the reply holds no text"),
        ((200, good(None)), "the reply holds no text"),
        ((200, good(["x"])), "the reply holds no text"),
        ((400, b'{"error": "no such\\n model"}'), 'the endpoint answered 400: {"error": "no such\\n model"}'),
    ],
)
def test_a_malformed_reply_fails_that_answer_at_once(reply: Reply, cause: str) -> None:
    with serving(lambda question, nth: reply if question == "bad" else (200, good("fine"))) as (url, seen):
        bad, fine = ask(url, "bad", "ok")
    assert (bad.finish, bad.text, bad.cause) == ("failed", None, cause)
    assert fine.text == "fine"
    assert len(seen) == 2, "a fault that will not pass is not tried again"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_faults_are_tried_again(status: int) -> None:
    with serving(lambda question, nth: (200, good("at last")) if nth == 3 else (status, b"busy")) as (url, seen):
        assert ask(url, "q")[0].text == "at last"
    assert len(seen) == 3


def test_a_lasting_server_error_is_given_up() -> None:
    reply = {"down": (500, b"down"), "up": (200, good("up"))}
    with serving(lambda question, nth: reply[question]) as (url, seen):
        down, up = ask(url, "down", "up")
    assert down.cause == "the endpoint answered 500: down" and up.text == "up"
    assert len(seen) == ATTEMPTS + 1


def test_retry_after_is_kept() -> None:
    def answer(question: str, nth: int) -> Reply:
        return (429, b"", {"Retry-After": "1"}) if nth == 1 else (200, good("ok"))

    with serving(answer) as (url, _):
        assert ask(url, "q")[0].seconds >= 1.0


def test_a_slow_answer_fails_at_its_time_out() -> None:
    def answer(question: str, nth: int) -> Reply:
        time.sleep(1.5 if question == "slow" else 0.0)
        return 200, good("ok")

    with serving(answer) as (url, _):
        started = time.perf_counter()
        slow, quick = ask(url, "slow", "quick", timeout_s=0.3)
        assert time.perf_counter() - started < 1.4
    assert slow.cause == "no answer within 0.3 s" and quick.text == "ok"


def test_no_success_at_all_is_one_sentence() -> None:
    with serving(lambda question, nth: (401, b"bad key")) as (url, _), pytest.raises(BadInput) as caught:
        ask(url, "a", "b")
    assert "none of 2 requests (the endpoint answered 401: bad key)" in str(caught.value)


def test_a_dead_endpoint_is_one_sentence() -> None:
    with pytest.raises(BadInput, match=r"none of 1 requests \(the connection failed \(ConnectError\)\)"):
        ask("http://127.0.0.1:9/v1", "a", timeout_s=0.5)


@pytest.mark.parametrize("url", ["ftp://host/v1", "file:///etc/passwd", "localhost:8000", "http://"])
def test_only_http_is_an_address(url: str) -> None:
    with pytest.raises(BadInput, match=r"not an http\(s\) address"):
        Endpoint(EndpointSpec(url=url, model="m"))


def test_the_key_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUTHIER_TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    reply = {"echo": (400, f"wrong key {KEY}".encode()), "ok": (200, good("ok"))}
    with serving(lambda question, nth: reply[question]) as (url, seen):
        echoed, _ = ask(url, "echo", "ok", key_env="LUTHIER_TEST_KEY")
    assert {r["key"] for r in seen} == {f"Bearer {KEY}"}
    assert echoed.cause == "the endpoint answered 400: wrong key ***"
    out = capfd.readouterr()
    assert KEY not in caplog.text + out.out + out.err


def test_a_missing_key_is_told_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUTHIER_TEST_KEY", raising=False)
    with pytest.raises(BadInput, match="LUTHIER_TEST_KEY holds no key"):
        Endpoint(EndpointSpec(url="http://127.0.0.1:1/v1", model="m", key_env="LUTHIER_TEST_KEY"))


def test_price() -> None:
    spec = EndpointSpec(url="http://127.0.0.1:1/v1", model="m", prompt_price=2.0, output_price=10.0)
    assert Endpoint(spec).price(1_000_000, 500_000) == pytest.approx(7.0)
