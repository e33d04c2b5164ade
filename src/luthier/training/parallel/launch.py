"""Start N processes of this very program on this machine, listen to the first, and end them together.

The processes are what `torchrun` would start: `python -m luthier …` with RANK and WORLD_SIZE. They meet in a private
file and talk over the loopback interface only. Rank 0's events come back through a pipe. When the parent dies, its
workers see their standard input end, finish the step, save and leave. Nothing here imports torch.

    ended = launch(["train", "task.yaml", "--json", "--quiet"], 2)
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from luthier.ground.events import Event, Tell, silent

STORE = "LUTHIER_STORE"  # the file in which the processes meet
WORKER = "LUTHIER_WORKER"  # set in a process that was started here: the descriptor that takes its events, or nothing
LOST = "another process of this run was lost"
GRACE_S = 30.0  # how long the others may take to end by themselves once one has failed
_POLL_S = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Ended:
    """How the processes ended.

    Attributes:
        exit_code: 0 if all ended well; otherwise that of the process whose words these are.
        output: standard output of rank 0.
        words: the one sentence to tell, if they did not end well.
        errors: the whole standard error of the process whose words these are.
    """

    exit_code: int
    output: str
    words: str = ""
    errors: str = ""


def launch(arguments: Sequence[str], procs: int, tell: Tell = silent) -> Ended:
    """Run `python -m luthier ARGUMENTS` in `procs` processes that form one group, and wait for all of them."""
    with tempfile.TemporaryDirectory(prefix="luthier-") as folder:
        workers = _Workers(Path(folder), procs, tell)
        with _signals_to(workers):
            try:
                workers.start(arguments)
                return workers.wait()
            finally:
                workers.kill()


def worker_environment(procs: int, rank: int, store: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of one process: its place in the group, loopback only, its share of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    loopback = "lo" if sys.platform == "linux" else "lo0"
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(procs), "LOCAL_WORLD_SIZE": str(procs)}
    return {
        "OMP_NUM_THREADS": str(max(1, cores // procs)),
        **given,
        **own,
        STORE: str(store),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
    }


def is_worker() -> bool:
    """Whether this process was started here."""
    return WORKER in os.environ


def as_worker() -> Tell | None:
    """In a process that was started here: watch the parent, and return whom to tell; None in any other process."""
    if not is_worker():
        return None
    threading.Thread(target=_watch_parent, daemon=True).start()
    descriptor = os.environ[WORKER]
    return _teller(int(descriptor)) if descriptor else silent


@dataclass
class _Workers:
    """The processes, and what is heard of them."""

    folder: Path
    procs: int
    tell: Tell
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    ended: list[int] = field(default_factory=list)  # ranks, in the order in which they ended
    asked: int = 0  # the signal that was sent on to all

    def start(self, arguments: Sequence[str]) -> None:
        reading, writing = os.pipe()
        listener = threading.Thread(target=_listen, args=(reading, self.events), daemon=True)
        try:
            for rank in range(self.procs):
                self.running.append(self._process(arguments, rank, writing))
        finally:
            os.close(writing)
        listener.start()

    def _process(self, arguments: Sequence[str], rank: int, writing: int) -> subprocess.Popen[bytes]:
        environment = worker_environment(self.procs, rank, self.folder / "store", os.environ)
        environment[WORKER] = "" if rank else str(writing)
        with open(self._file("out", rank), "wb") as out, open(self._file("err", rank), "wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "luthier", *arguments],
                stdin=subprocess.PIPE,  # never written to: it ends when this process does
                stdout=out,
                stderr=err,
                env=environment,
                pass_fds=() if rank else (writing,),
                start_new_session=True,  # a terminal's Ctrl-C comes here only, and is sent on once
            )

    def wait(self) -> Ended:
        deadline = float("inf")
        while len(self.ended) < self.procs:
            time.sleep(_POLL_S)
            self._hear()
            for rank, process in enumerate(self.running):
                if rank not in self.ended and process.poll() is not None:
                    self.ended.append(rank)
                    if process.returncode:
                        deadline = min(deadline, time.monotonic() + GRACE_S)
            if time.monotonic() > deadline:
                self.kill()
        self._hear()
        return self._outcome()

    def send(self, number: int) -> None:
        """Send a signal on to all that still run."""
        self.asked = self.asked or number
        for process in self.running:
            if process.poll() is None:
                process.send_signal(number)

    def kill(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _hear(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self.tell(self.events.get_nowait())

    def _outcome(self) -> Ended:
        codes = [process.returncode for process in self.running]
        output = self._text("out", 0)
        if not any(codes):
            return Ended(0, output)
        failed = [rank for rank in self.ended if codes[rank]]
        spoke = [rank for rank in failed if codes[rank] > 0 and LOST not in self._words(rank)]
        if spoke:  # rank 0 speaks for all; another one only for itself
            rank = 0 if 0 in spoke else spoke[0]
            return Ended(codes[rank], output, self._words(rank), self._text("err", rank))
        killed = failed[0] if codes[failed[0]] < 0 else next((rank for rank in failed if codes[rank] < 0), failed[0])
        how = f"process {killed} of {self.procs} was killed ({_signal_name(codes[killed])})"
        if self.asked:
            return Ended(128 + self.asked, output, f"{how} before it could save; continue with --resume")
        words = next((self._words(rank) for rank in failed if codes[rank] > 0), LOST + "; continue with --resume")
        return Ended(2, output, words.replace(LOST, how), self._text("err", killed))

    def _words(self, rank: int) -> str:
        lines = self._text("err", rank).splitlines()
        told = [line.removeprefix("luthier: ") for line in lines if line.startswith("luthier: ")]
        return told[-1] if told else f"process {rank} failed: {lines[-1] if lines else 'without a word'}"

    def _text(self, kind: str, rank: int) -> str:
        return self._file(kind, rank).read_text(encoding="utf-8", errors="replace")

    def _file(self, kind: str, rank: int) -> Path:
        return self.folder / f"{kind}-{rank}"


@contextlib.contextmanager
def _signals_to(workers: _Workers) -> Iterator[None]:
    """Send SIGINT and SIGTERM on to the workers: the first lets them save, the second lets them leave at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def receive(number: int, _frame: FrameType | None) -> None:
        workers.send(number)

    before = {number: signal.signal(number, receive) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _listen(descriptor: int, events: queue.SimpleQueue[Event]) -> None:
    with open(descriptor, encoding="utf-8") as lines:
        for line in lines:
            events.put(json.loads(line))


def _teller(descriptor: int) -> Tell:
    def tell(event: Event) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent is gone; the lifeline says so
            os.write(descriptor, (json.dumps(event, default=str) + "\n").encode())

    return tell


def _watch_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
