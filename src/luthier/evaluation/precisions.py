"""Run a task's rows through its model in several precisions, and measure what each does to the answers.

Float32 is the reference. For each precision: loss per target token, KL(fp32 ‖ this) and agreement of the likeliest
token at target positions, the largest activation and where it stands, values that are not finite, seconds and bytes.
Each model computes in its own precision from end to end (weights, activations and sums as the libraries do them). One
model is in memory at a time; of the reference only the log-probabilities at the kept target positions stay (at most
`KEPT_BYTES`), beside the chunk of 128 positions that is worked on. What the numbers mean for a choice is
`luthier.advice.precision`; what training would do is `luthier.evaluation.precision_risks`.

    trials = try_precisions(lambda precision: load_in(found, precision), rows, ("fp32", "bf16", "fp16"))
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from luthier.evaluation.activations import Watch
from luthier.ground.doctor_result import PrecisionTrial
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.models.find import Found
from luthier.models.load import Precision, load_model
from luthier.models.packed import hidden_at, logits_at
from luthier.models.segments import Segments
from luthier.rows.packing import pack_rows
from luthier.rows.types import Encoded, IntArray, Pack

REFERENCE = "fp32"
ROWS = 16  # rows that are used, spread over all that are given
POSITIONS = 64  # target positions of a row at which whole distributions are compared, spread over the row
KEPT_BYTES = 256_000_000  # of the reference's log-probabilities; a large vocabulary lowers POSITIONS
PACK_TOKENS = 1024
CHUNK = 128  # target positions whose logits exist at once


def try_precisions(
    load: Callable[[str], PreTrainedModel],
    rows: Sequence[Encoded],
    precisions: Sequence[str] = ("fp32", "bf16", "fp16"),
    tell: Tell = silent,
) -> list[PrecisionTrial]:
    """Return what each precision does to these rows, float32 first, whether it is named or not.

    Args:
        load: gets a precision's name and returns the model in it (`load_in` does). It must not keep the model.
        rows: encoded rows with targets; `ROWS` of them are used. Loss is over all their targets.

    Raises:
        BadInput: no row has a target.
    """
    packs = pack_rows(spread(rows, ROWS), PACK_TOKENS)
    reference: _Seen | None = None
    trials = []
    for precision in dict.fromkeys((REFERENCE, *precisions)):
        tell({"kind": "stage", "text": f"running {min(len(rows), ROWS)} rows in {precision}"})
        seen = _run(load(precision), packs, reference)
        gc.collect()  # a model's modules refer to each other; the next one needs the room
        reference = reference or seen
        trials.append(_trial(precision, seen, reference))
    return trials


def load_in(found: Found, precision: str) -> PreTrainedModel:
    """Return the model in fp32, bf16 or fp16; fp16 is made from the float32 weights."""
    if precision != "fp16":
        return load_model(found, cast(Precision, precision)).model
    return narrowed(load_model(found, "fp32").model, torch.float16)


def narrowed(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Round all parameters to `dtype`, in place; tied ones stay tied.

    Buffers stay as they are: `model.to(float16)` would round the frequencies of rotary embeddings too, down to 1e-5,
    which no loader does.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def spread(rows: Sequence[Encoded], count: int) -> list[Encoded]:
    """Return at most `count` rows with targets, evenly spread over all of them.

    Raises:
        BadInput: there is none.
    """
    usable = [row for row in rows if row.target_tokens]
    if not usable:
        raise BadInput("no row has a target, so no precision can be tried on them", fix="look at `luthier check`")
    return [usable[n] for n in _evenly(len(usable), count)]


@dataclass
class _Seen:
    """What one model did, and, of the reference, what the others are held to.

    Attributes:
        logprobs: [M, V] float32 per pack, at the kept positions; of the reference only.
    """

    watch: Watch
    weights_bytes: int
    largest_number: float = math.inf  # of the arithmetic's precision
    loss_sum: float = 0.0
    count: int = 0
    kl_sum: float = 0.0
    agreed: int = 0
    kept: int = 0
    seconds: float = 0.0
    logprobs: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def _run(model: PreTrainedModel, packs: Sequence[Pack], reference: _Seen | None) -> _Seen:
    """Run the packs through the model, beside the reference, or as the reference."""
    seen = _Seen(Watch(model), _weights_bytes(model))
    per_row = _positions_per_row(model, packs)
    with seen.watch:
        for number, pack in enumerate(packs):
            kept_N = torch.from_numpy(_kept(pack, per_row))
            theirs_MV = reference.logprobs[number] if reference else None
            ours = list(_run_pack(model, pack, kept_N, theirs_MV, seen))
            if reference is None:
                seen.logprobs.append(torch.cat(ours))
    if reference is None:
        seen.agreed = seen.kept  # with itself
    return seen


def _run_pack(
    model: PreTrainedModel, pack: Pack, kept_N: Tensor, theirs_MV: Tensor | None, seen: _Seen
) -> Iterator[Tensor]:
    """Add a pack's numbers to `seen` and yield the log-probabilities at its kept positions, chunk by chunk."""
    targets_N = torch.from_numpy(pack.ids_T[pack.target_T])
    done = 0
    for start, logits_CV in _logits(model, pack, seen):
        chunk = slice(start, start + len(logits_CV))
        logprobs_CV = torch.log_softmax(logits_CV.float(), -1)
        wanted_C1 = targets_N[chunk, None].to(logprobs_CV.device)
        seen.loss_sum -= logprobs_CV.gather(1, wanted_C1).double().sum().item()
        seen.count += len(logits_CV)
        ours_MV = logprobs_CV[kept_N[chunk].to(logprobs_CV.device)].cpu()
        if theirs_MV is not None:
            _compare(theirs_MV[done : done + len(ours_MV)], ours_MV, seen)
        done += len(ours_MV)
        seen.kept += len(ours_MV)
        yield ours_MV if theirs_MV is None else ours_MV[:0]


def _logits(model: PreTrainedModel, pack: Pack, seen: _Seen) -> Iterator[tuple[int, Tensor]]:
    """Yield (first target, logits [C, V]); the time of the model alone is counted, without that of the watch."""
    device = model.device
    ids_T, positions_T, before_N = (
        torch.from_numpy(x).to(device) for x in (pack.ids_T, pack.positions_T, pack.predictors_N)
    )
    seen.watch.tokens = len(pack)
    with _timed(seen):
        hidden_ND = hidden_at(model, ids_T, positions_T, Segments(pack.lengths, pack.parents), before_N)
    seen.largest_number = torch.finfo(hidden_ND.dtype).max
    for start in range(0, len(hidden_ND), CHUNK):
        with _timed(seen):
            logits_CV = logits_at(model, hidden_ND[start : start + CHUNK])
        yield start, logits_CV


class _timed:  # reads as a word in a with statement
    """Add the seconds of the block to `seen.seconds`, less those that the watch took."""

    def __init__(self, seen: _Seen) -> None:
        self._seen = seen

    def __enter__(self) -> None:
        self._began = time.perf_counter() - self._seen.watch.seconds

    def __exit__(self, *_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._seen.seconds += time.perf_counter() - self._seen.watch.seconds - self._began


def _compare(p_MV: Tensor, q_MV: Tensor, seen: _Seen) -> None:
    """Add Σ_m Σ_v p (log p − log q), and where the likeliest tokens agree; both are log-probabilities."""
    terms_MV = p_MV.exp() * (p_MV - q_MV)
    terms_MV[p_MV.exp() == 0] = 0.0  # 0 · log 0 is 0, also where q is 0
    seen.kl_sum += terms_MV.sum(-1).double().sum().item()
    seen.agreed += int((p_MV.argmax(-1) == q_MV.argmax(-1)).sum())


def _trial(precision: str, seen: _Seen, reference: _Seen) -> PrecisionTrial:
    loss = _finite(seen.loss_sum / seen.count)
    wanted = _finite(reference.loss_sum / reference.count)
    comparable = loss is not None and wanted is not None
    largest, place = _largest(seen, reference)
    return PrecisionTrial(
        precision=precision,
        loss=loss,
        loss_change=None if loss is None or wanted is None else loss - wanted,
        kl=_finite(seen.kl_sum / seen.kept) if comparable else None,
        agreement=seen.agreed / seen.kept if comparable else None,
        largest_activation=largest,
        largest_at=place,
        share_of_range=largest / seen.largest_number,
        not_finite=seen.watch.not_finite,
        seconds=seen.seconds,
        weights_bytes=seen.weights_bytes,
    )


def _largest(seen: _Seen, reference: _Seen) -> tuple[float, str]:
    """Return the largest activation and its place.

    Where values were not finite, the place is that of the first of them, and the activation is what float32 has there
    if that is beyond this precision: the number that did not fit.
    """
    watch = seen.watch
    if not watch.first_bad:
        return watch.largest
    there = reference.watch.peaks.get(watch.first_bad, 0.0)
    largest = there if there > seen.largest_number else watch.largest[0]
    return largest, watch.first_bad[0]


def _kept(pack: Pack, per_row: int) -> np.typing.NDArray[np.bool_]:
    """Return which of the pack's targets are kept [N]: at most `per_row` of each row, evenly spread."""
    counts = [int(part.sum()) for part in np.split(pack.target_T, np.cumsum(pack.lengths)[:-1])]
    kept_N = np.zeros(pack.target_tokens, dtype=np.bool_)
    for first, count in zip(np.cumsum([0, *counts[:-1]]), counts, strict=True):
        kept_N[first + _evenly(count, per_row)] = True
    return kept_N


def _evenly(total: int, count: int) -> IntArray:
    """Return `count` different numbers below `total`, or all of them."""
    return np.arange(total) if total <= count else np.arange(count, dtype=np.int64) * total // count


def _positions_per_row(model: PreTrainedModel, packs: Sequence[Pack]) -> int:
    rows = sum(len(pack.lengths) for pack in packs)
    return max(1, min(POSITIONS, KEPT_BYTES // (4 * int(model.config.vocab_size) * rows)))


def _weights_bytes(model: PreTrainedModel) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
