"""The processes of one run: who they are, what they say to each other, and how they fail together.

Control messages are JSON in byte tensors (no pickle); gradients are summed in a few float32 buckets. An error of one
process is raised by all, so nobody waits for somebody who has left. A group of one does nothing at all, which is how
an ordinary run uses it. How processes are started is `launch`; what they compute is `step`.

    >>> SOLO.first(lambda: {"path": "runs/train-001"})
    {'path': 'runs/train-001'}
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from torch._C._distributed_c10d import FileStore

from luthier.ground.errors import BadInput, Interrupted, LuthierError, Refused
from luthier.training.parallel.launch import LOST, STORE

T = TypeVar("T")

BUCKET_ELEMENTS = 16 * 1024 * 1024  # 64 MiB of float32: large enough to fill a link, small beside the gradients
TIMEOUT = timedelta(hours=1)  # a process that died is noticed at once; this is for one that hangs
_ERRORS: dict[str, type[LuthierError]] = {"BadInput": BadInput, "Refused": Refused}
_LOST = re.compile(r"gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|timed out|process group", re.I)


@dataclass(frozen=True)
class Group:
    """The processes of a run; `rank` counts from 0, and rank 0 is the one that writes and speaks.

    Attributes:
        device: where this process computes.
        control: the gloo group of control messages; None in a group of one.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    # -- acting together -------------------------------------------------------------------------------------------

    def first(self, act: Callable[[], T]) -> T:
        """Let rank 0 act, and return its (JSON) result on every rank; its error is raised on every rank."""
        if self.size == 1:
            return act()
        own: list[T] = []
        self.together(lambda: own.append(act()) if self.is_first else None)
        result: T = self.share(own[0] if own else None)
        return own[0] if own else result

    def together(self, act: Callable[[], T]) -> T:
        """Act on every rank; if any rank meets an error of Luthier's, all raise the one of the lowest rank."""
        if self.size == 1:
            return act()
        error: LuthierError | None = None
        result: list[T] = []
        try:
            result.append(act())
        except (LuthierError, OSError, SafetensorError) as met:
            error = met if isinstance(met, LuthierError) else _disk_error(met, self.rank)
        told = self.gather(None if error is None else _plain(error))
        first = next((plain for plain in told if plain is not None), None)
        if first is not None:
            raise _error(first) from error
        return result[0]

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let one rank after the other run the block: what only one of them can afford at a time, such as loading."""
        for _ in range(self.rank):
            self.barrier()
        try:
            yield
        finally:
            for _ in range(self.size - self.rank):
                self.barrier()

    # -- messages --------------------------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1), group=self.control)

    def share(self, value: Any) -> Any:
        """Return rank 0's JSON value on every rank."""
        return self.gather(value if self.is_first else None)[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's JSON value, by rank, on every rank."""
        if self.size == 1:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [int(size) for [size] in self.gather_numbers([len(data)])]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(data)] = data
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=self.control)
        return [json.loads(bytes(part[:size].numpy())) for part, size in zip(parts, sizes, strict=True)]

    def gather_numbers(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return every rank's integers, by rank, on every rank; all must give equally many."""
        if self.size == 1:
            return [list(numbers)]
        mine = torch.tensor(list(numbers), dtype=torch.int64)
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine, group=self.control)
        return [part.tolist() for part in parts]

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum over the ranks of each number, in float64."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(list(numbers), dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return [float(number) for number in total]

    def sum_tensors_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, in float32, a few large messages for all of them."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1).to(torch.float32) for tensor in bucket])
            dist.all_reduce(flat)
            for tensor, part in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def share_tensors(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return rank 0's tensors on every rank, on the CPU."""
        if self.size == 1:
            return dict(tensors or {})
        plain = {name: [list(value.shape), str(value.dtype)] for name, value in (tensors or {}).items()}
        shared: dict[str, Tensor] = {}
        for name, (shape, dtype) in self.share(plain).items():
            value = torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
            if tensors is not None and self.is_first:
                value.copy_(tensors[name])
            if value.numel():  # as bytes, because gloo does not send every dtype
                dist.broadcast(value.view(-1).view(torch.uint8), 0, group=self.control)
            shared[name] = value
        return shared


SOLO = Group()


@contextlib.contextmanager
def joined() -> Iterator[Group]:
    """Join the group that the environment names (RANK, WORLD_SIZE; as torchrun, Slurm and `--procs` set them).

    Without these the run is a group of one. A process group that stands already (Ray makes one) is used and kept.

    Raises:
        BadInput: the variables do not make sense.
    """
    size, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    if dist.is_initialized():
        yield _group(dist.get_rank(), dist.get_world_size())
        return
    if size == 1:
        yield SOLO
        return
    if not 0 <= rank < size:
        raise BadInput(f"RANK is {rank} and WORLD_SIZE is {size}", where="environment", fix="start with torchrun")
    _begin(rank, size)
    try:
        with lost_as_one_sentence():
            yield _group(rank, size)
    finally:
        with contextlib.suppress(RuntimeError):  # a peer may have gone without a word
            dist.destroy_process_group()


@contextlib.contextmanager
def lost_as_one_sentence(after: Callable[[], str] = str, where: str | None = None, resume: str = "") -> Iterator[None]:
    """Turn the backend's words about a vanished peer into one sentence that says how to go on.

    Args:
        after: tells how far the run was, such as ` after step 7`.
        resume: the command that goes on.
    """
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized() or not _LOST.search(str(error)):
            raise
        fix = f"continue with: {resume}" if resume else "start it again with --resume"
        raise BadInput(f"{LOST}{after()}; what was saved before is kept", where=where, fix=fix) from error


def _begin(rank: int, size: int) -> None:
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(_number("LOCAL_RANK", rank % torch.cuda.device_count()))
        backend = "cpu:gloo,cuda:nccl"
    path = os.environ.get(STORE)
    place: dict[str, Any] = {"store": FileStore(path, size)} if path else {"init_method": "env://"}
    try:
        dist.init_process_group(backend, rank=rank, world_size=size, timeout=TIMEOUT, **place)
    except (RuntimeError, ValueError) as error:
        raise BadInput(
            f"the processes do not find each other ({' '.join(str(error).split())[:200]})",
            where=f"rank {rank} of {size}",
            fix="check MASTER_ADDR and MASTER_PORT, or start with torchrun",
        ) from error


def _group(rank: int, size: int) -> Group:
    if size == 1:
        return SOLO
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    return Group(rank, size, device, dist.new_group(backend="gloo", timeout=TIMEOUT))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise BadInput(f"{name} is {text!r}, not a number", where="environment", fix="start with torchrun or --procs")
    return int(text or default)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    elements = 0
    for tensor in tensors:
        if bucket and elements + tensor.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
        bucket.append(tensor)
        elements += tensor.numel()
    if bucket:
        yield bucket


def _disk_error(error: Exception, rank: int) -> BadInput:
    words = " ".join(str(error).split())
    return BadInput(f"process {rank} could not read or write ({words})", fix="check the disk and the permissions")


def _plain(error: LuthierError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "code": error.exit_code,
        "what": error.what,
        "where": error.where,
        "fix": error.fix,
    }


def _error(plain: Mapping[str, Any]) -> LuthierError:
    if plain["code"] > 128:
        return Interrupted(plain["what"], signal_number=plain["code"] - 128, where=plain["where"], fix=plain["fix"])
    return _ERRORS.get(plain["kind"], BadInput)(plain["what"], where=plain["where"], fix=plain["fix"])
