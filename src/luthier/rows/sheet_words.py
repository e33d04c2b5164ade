"""What the truth sheet says in sentences: the reasons against training, and the warnings.

Each sentence is made of counts that the sheet holds too. Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from luthier.ground.results import Duplicates, Pair

if TYPE_CHECKING:
    from luthier.rows.sheet import SplitSheet

FEW_TEST_ITEMS = 50
DOMINANT = 0.9
_ENOUGH_ROWS = 10  # of fewer rows, equal answers say nothing


def reasons_of(
    sheets: Mapping[str, SplitSheet], overlap: Mapping[str, Duplicates], *, on_bad: str, on_long: str, max_length: int
) -> list[str]:
    """Return why training would be meaningless; an empty list if it would not."""
    return [
        *_refused(sheets, on_bad),
        *_nothing_to_learn(sheets.get("train")),
        *_too_long(sheets, on_long, max_length),
        *_leaked(overlap),
    ]


def warnings_of(
    sheets: Mapping[str, SplitSheet],
    duplicates: Mapping[str, Duplicates],
    overlap: Mapping[str, Duplicates],
    clashes: Mapping[str, Sequence[Pair]],
    *,
    on_long: str,
    max_length: int,
) -> list[str]:
    """Return what a person should know though it does not forbid training."""
    return [
        *_missing_splits(sheets),
        *_lost_rows(sheets, on_long, max_length),
        *_repeats(duplicates, overlap),
        *_shared_groups(sheets),
        *_answers(sheets, clashes),
    ]


def _refused(sheets: Mapping[str, SplitSheet], on_bad: str) -> Iterator[str]:
    for name, sheet in sheets.items():
        if sheet.counts.refused and on_bad == "refuse":
            of = f"{sheet.counts.refused:,} of {sheet.counts.read:,}"
            yield f"{name}: {of} rows refused; mend them or set data.on_bad: skip"


def _nothing_to_learn(train: SplitSheet | None) -> Iterator[str]:
    if train is None:
        yield "there is no train split, so there is nothing to train on; set data.train"
        return
    kept = train.counts.kept
    if not kept:
        yield "train: no row is kept, so there is nothing to train on"
    elif train.unended == kept:
        yield "train: no row trains an end token, so the model would not learn to stop; use a template that writes one"
    answer, share = train.top_answer
    if kept >= _ENOUGH_ROWS and share == 1.0:
        yield f'train: every answer is "{_short(answer)}", so there is nothing to learn'


def _too_long(sheets: Mapping[str, SplitSheet], on_long: str, max_length: int) -> Iterator[str]:
    for name in ("train", "dev"):
        if name in sheets and sheets[name].too_long and on_long == "fail":
            count = _rows(sheets[name].too_long)
            yield f"{name}: {count} longer than {max_length:,} tokens, and on_long is fail; raise train.max_length"


def _leaked(overlap: Mapping[str, Duplicates]) -> Iterator[str]:
    found = overlap.get("train/test")
    if found and found.exact:
        stand = count_of(found.exact, "test item stands", "test items stand")
        yield f"{stand} word for word in train; remove from train"


def _missing_splits(sheets: Mapping[str, SplitSheet]) -> Iterator[str]:
    if "dev" not in sheets:
        yield "there is no dev split, so prompts and checkpoints cannot be chosen; set data.dev"
    if "test" not in sheets:
        yield "there is no test split, so nothing can be compared; set data.test"
    elif (count := len(sheets["test"].rows)) < FEW_TEST_ITEMS:
        few = count_of(count, "item is", "items are")
        yield f"test: {few} few; most differences will not be seen below {FEW_TEST_ITEMS}"
    for name in ("dev", "test"):
        if name in sheets and any(row.messages is None and row.gap is None for row in sheets[name].rows):
            yield f"{name}: rows of raw text have no answer to compare with"


def _lost_rows(sheets: Mapping[str, SplitSheet], on_long: str, max_length: int) -> Iterator[str]:
    for name, sheet in sheets.items():
        counts = sheet.counts
        if sheet.too_long and name == "test":
            yield f"test: {_rows(sheet.too_long)} longer than {max_length:,} tokens; they are answered all the same"
        elif sheet.too_long:
            lost = counts.without_target - sheet.weightless - sheet.quiet
            what = f"{counts.cut:,} cut, {counts.dropped + lost:,} left out"
            yield f"{name}: {_rows(sheet.too_long)} longer than {max_length:,} tokens (on_long: {on_long}: {what})"
        if sheet.weightless:
            yield f"{name}: {count_of(sheet.weightless, 'row has', 'rows have')} weight 0 and no part in training"
        if sheet.quiet:
            yield f"{name}: {count_of(sheet.quiet, 'row has', 'rows have')} no answer that is to be trained"
        if lost := counts.without_target - sheet.weightless - sheet.quiet:
            yield f"{name}: {_rows(lost)} left without a target: the answer alone exceeds the limit"
        if 0 < sheet.unended < counts.kept:
            yield f"{name}: {_rows(sheet.unended)} without an end token after the last answer"


def _repeats(duplicates: Mapping[str, Duplicates], overlap: Mapping[str, Duplicates]) -> Iterator[str]:
    for name, found in duplicates.items():
        if found.exact or found.near:
            repeat = count_of(found.exact, "row repeats", "rows repeat")
            yield f"{name}: {repeat} an earlier one exactly, {found.near:,} nearly"
    for name, found in overlap.items():
        a, b = name.split("/")
        if found.exact or found.near:
            stand = count_of(found.exact, "item stands", "items stand")
            yield f"{b}: {stand} exactly in {a}, {found.near:,} nearly; their scores flatter"


def _shared_groups(sheets: Mapping[str, SplitSheet]) -> Iterator[str]:
    groups = {name: {row.group for row in sheet.rows if row.group} for name, sheet in sheets.items()}
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        shared = groups.get(a, set()) & groups.get(b, set())
        if shared:
            stand = count_of(len(shared), "group stands", "groups stand")
            yield f"{stand} in both {a} and {b}, such as {_short(min(shared))}"


def _answers(sheets: Mapping[str, SplitSheet], clashes: Mapping[str, Sequence[Pair]]) -> Iterator[str]:
    for name, pairs in clashes.items():
        if pairs:
            first = pairs[0]
            yield (
                f"{name}: {_rows(len(pairs))} asking what an earlier row asks, with another answer "
                f"(first: {first.a} and {first.b})"
            )
    for name, sheet in sheets.items():
        answer, share = sheet.top_answer
        if len(sheet.rows) >= _ENOUGH_ROWS and share > DOMINANT:
            yield f'{name}: {100 * share:.0f}% of the answers are "{_short(answer)}"'


def count_of(count: int, one: str, many: str) -> str:
    return f"1 {one}" if count == 1 else f"{count:,} {many}"


def _rows(count: int) -> str:
    return count_of(count, "row is", "rows are")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
