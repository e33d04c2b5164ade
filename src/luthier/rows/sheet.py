"""The data truth sheet: what the rows are, before anything is trained on them.

Each row is composed, rendered, tokenised, masked and decoded back, exactly as training does it. The sheet counts what
is kept and lost, looks for repetition and leakage, and says whether training would mean anything. It changes and
prints nothing.

Training is called meaningless (`ok` is false) when no train row is kept, none has a target, the end token is not
trained, all answers are one, rows were refused (unless `on_bad` is skip), a row is too long under `fail`, or test items
stand word for word in train. All else that a person should know is a warning.

Token quantiles and histograms are of all rows that could be encoded, before the length policy; totals are of what it
keeps.

    sheet = truth_sheet("tickets", {"train": read_rows("train.jsonl", folder=folder)}, renderer)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from luthier.ground.results import CheckResult, Fault, RowCounts, RowView, Segment, TokenCounts, TurnCounts
from luthier.rows.duplicates import SHOWN, across, conflicts, folded, within
from luthier.rows.lengths import OnLong, cuttable, fit_length
from luthier.rows.read import ReadResult
from luthier.rows.sheet_words import reasons_of, warnings_of
from luthier.rows.template import Renderer, RowRefused
from luthier.rows.types import Encoded, Row

VIEWS = 3
BINS = 12
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass
class SplitSheet:
    """What became of the rows of one split."""

    rows: list[Row]
    counts: RowCounts = field(default_factory=RowCounts)
    tokens: TokenCounts = field(default_factory=TokenCounts)
    faults: list[Fault] = field(default_factory=list)
    kept: list[Encoded] = field(default_factory=list)
    unended: int = 0  # kept rows whose last target is no end token
    too_long: int = 0
    weightless: int = 0  # rows of weight 0
    quiet: int = 0  # rows of which no answer is to be trained
    top_answer: tuple[str, float] = ("", 0.0)  # the most frequent answer and its share


def truth_sheet(
    task_name: str,
    splits: Mapping[str, ReadResult],
    renderer: Renderer,
    *,
    encode: Callable[[Row], Sequence[Encoded]] | None = None,
    prompt_of: Callable[[Row], Row] = lambda row: row,
    turns: Literal["all", "last"] = "all",
    max_length: int = 2048,
    on_long: OnLong = "drop",
    on_bad: Literal["refuse", "skip"] = "refuse",
) -> CheckResult:
    """Return the truth sheet of a task's splits.

    Args:
        splits: train, dev and test, as far as they exist.
        encode: how the objective encodes a row, in one piece or several, which are what is counted as kept (default:
            as a conversation, all answers trained).
        prompt_of: what training makes of a row (instruction, examples, passages), with its answer.
        turns: which answers of a conversation are trained.
        max_length, on_long: the length policy of training.
        on_bad: whether refused rows forbid training.
    """
    sheets = {
        name: _split_sheet(
            result, renderer, encode or (lambda row: [renderer.encode_row(row)]), prompt_of, max_length, on_long
        )
        for name, result in splits.items()
    }
    faults = [fault for sheet in sheets.values() for fault in sheet.faults]
    overlap = {
        f"{a}/{b}": across(sheets[a].rows, sheets[b].rows)
        for a, b in (("train", "dev"), ("train", "test"), ("dev", "test"))
        if a in sheets and b in sheets
    }
    duplicates = {name: within(sheet.rows) for name, sheet in sheets.items()}
    clashes = {name: conflicts(sheet.rows) for name, sheet in sheets.items()}
    reasons = reasons_of(sheets, overlap, on_bad=on_bad, on_long=on_long, max_length=max_length)
    notices = [*(notice for result in splits.values() for notice in result.notices), *renderer.warnings]
    train = sheets.get("train")
    return CheckResult(
        task=task_name,
        rows={name: sheet.counts for name, sheet in sheets.items()},
        tokens={name: sheet.tokens for name, sheet in sheets.items()},
        turns={name: counts for name, sheet in sheets.items() if (counts := turn_counts(sheet.rows, turns)).answers},
        faults=faults[:SHOWN],
        fault_counts=dict(Counter(fault.kind for fault in faults).most_common()),
        duplicates=duplicates,
        overlap=overlap,
        conflicts=[pair for pairs in clashes.values() for pair in pairs][:SHOWN],
        end_token_trained=bool(train and train.kept and train.unended == 0),
        end_token=renderer.end_token or renderer.tokens.names["eos_token"] or None,
        max_length=max_length,
        on_long=on_long,
        template=renderer.template,
        views=[seen_row(encoded, renderer) for encoded in _spread(train.kept if train else [])],
        warnings=[*notices, *warnings_of(sheets, duplicates, overlap, clashes, on_long=on_long, max_length=max_length)],
        reasons=reasons,
        ok=not reasons,
    )


def _split_sheet(
    result: ReadResult,
    renderer: Renderer,
    encode: Callable[[Row], Sequence[Encoded]],
    prompt_of: Callable[[Row], Row],
    max_length: int,
    on_long: OnLong,
) -> SplitSheet:
    sheet = SplitSheet(result.rows, faults=list(result.faults))
    encoded: list[Encoded] = []
    for row in result.rows:
        try:
            pieces = encode(prompt_of(row))
        except RowRefused as refusal:
            sheet.faults.append(_fault(row, refusal))
            continue
        encoded += pieces
        if not any(piece.target_tokens for piece in pieces):
            sheet.weightless += row.weight == 0
            sheet.quiet += row.weight > 0 and any(not message.train for message in row.messages or ())
    vanished = dropped = cut = 0
    for one in encoded:
        sheet.too_long += len(one) > max_length
        fitted = fit_length(one, max_length, "drop" if on_long == "fail" else on_long)
        if not one.target_tokens or (fitted is None and _targets_too_long(one, max_length)):
            vanished += 1
        elif fitted is None:
            dropped += 1
        else:
            cut += fitted.cut > 0
            sheet.unended += fitted.label_L is None and not _ends(fitted, renderer)
            sheet.kept.append(fitted)
    sheet.counts = RowCounts(
        read=result.read,
        refused=len(sheet.faults),
        kept=len(sheet.kept),
        cut=cut,
        dropped=dropped,
        without_target=vanished,
    )
    sheet.tokens = _token_counts(encoded, sheet.kept)
    sheet.top_answer = _top_answer(result.rows)
    return sheet


def turn_counts(rows: Sequence[Row], turns: Literal["all", "last"]) -> TurnCounts:
    """Return how many answers rows have, how many of them are not trained or call tools, and the rows' weights."""
    answers = [[message for message in row.messages or () if message.role == "assistant"] for row in rows]
    trained = [[m for m in (of_row if turns == "all" else of_row[-1:]) if m.train] for of_row in answers]
    weights = [row.weight for row in rows] or [1.0]
    total = sum(map(len, answers))
    return TurnCounts(
        answers=total,
        untrained=total - sum(map(len, trained)),
        calls=sum(bool(message.tool_calls) for of_row in answers for message in of_row),
        with_tools=sum(row.tools is not None for row in rows),
        weighted=sum(weight != 1.0 for weight in weights),
        weightless=sum(weight == 0.0 for weight in weights),
        smallest_weight=min(weights),
        largest_weight=max(weights),
    )


def _targets_too_long(encoded: Encoded, max_length: int) -> bool:
    """Tell whether no cut of the prompt could make the row fit."""
    return len(encoded) - cuttable(encoded) > max_length


def _ends(encoded: Encoded, renderer: Renderer) -> bool:
    """Tell whether the last trained token ends an answer."""
    targets = encoded.ids_T[encoded.target_T]
    return len(targets) > 0 and int(targets[-1]) in renderer.end_ids


def _fault(row: Row, refusal: RowRefused) -> Fault:
    file, _, line = row.place.rpartition(":")
    number = int(line) if line.isdigit() else 0
    return Fault(file=file or row.place, line=number, kind=refusal.kind, message=refusal.what)


def _token_counts(encoded: Sequence[Encoded], kept: Sequence[Encoded]) -> TokenCounts:
    lengths_N = np.array([len(one) for one in encoded], dtype=np.int64)
    targets_N = np.array([one.target_tokens for one in encoded], dtype=np.int64)
    return TokenCounts(
        total=sum(len(one) for one in kept),
        target=sum(one.target_tokens for one in kept),
        quantiles=quantiles_of(lengths_N),
        target_quantiles=quantiles_of(targets_N),
        histogram=histogram_of(lengths_N),
    )


def quantiles_of(values_N: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[str, int]:
    if not len(values_N):
        return {}
    found = np.percentile(values_N, _QUANTILES, method="nearest")
    return {f"p{q}": int(value) for q, value in zip(_QUANTILES, found, strict=True)}


def histogram_of(values_N: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[tuple[int, int, int]]:
    """Return (from, to, rows), with whole numbers in [from, to]; the bins are equally wide and cover all rows."""
    if not len(values_N):
        return []
    low, high = int(values_N.min()), int(values_N.max())
    width = -(-(high - low + 1) // BINS)
    counts_B = np.bincount((values_N - low) // width)
    return [(low + i * width, low + (i + 1) * width - 1, int(count)) for i, count in enumerate(counts_B)]


def _top_answer(rows: Sequence[Row]) -> tuple[str, float]:
    answers = Counter(folded(row.reference) for row in rows if row.messages is not None)
    if not answers:
        return "", 0.0
    answer, count = answers.most_common(1)[0]
    return answer, count / answers.total()


def _spread(kept: Sequence[Encoded]) -> list[Encoded]:
    """Return the first row, the last, and one between."""
    numbers = np.linspace(0, len(kept) - 1, min(VIEWS, len(kept))).round().astype(int)
    return [kept[i] for i in numbers]


def seen_row(encoded: Encoded, renderer: Renderer) -> RowView:
    """Return a row as the model sees it, decoded from the ids in runs of trained and untrained tokens."""
    edges = np.flatnonzero(np.diff(encoded.target_T)) + 1
    runs = [run for run in np.split(np.arange(len(encoded.ids_T)), edges) if len(run)]
    read = [] if encoded.encoder_S is None else [encoded.encoder_S.tolist()]
    segments = [Segment(text=renderer.tokens.decode(ids), trained=False) for ids in read]
    segments += [
        Segment(text=renderer.tokens.decode(encoded.ids_T[run].tolist()), trained=bool(encoded.target_T[run[0]]))
        for run in runs
    ]
    return RowView(place=encoded.place, tokens=len(encoded), target_tokens=encoded.target_tokens, segments=segments)
