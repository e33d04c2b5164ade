"""From measured precisions to warnings and a recommendation; each sentence names its numbers.

Nothing is measured here: trials are from `luthier.evaluation.precisions`, weights, training and adapters from
`luthier.evaluation.precision_risks`, the machine's table from `luthier.machine`. `docs/precision.md` explains the
limits.

| rule | speaks when |
|---|---|
| P1 | a checkpoint that was made in bf16 is run in fp16 |
| P2 | values were not finite, or the largest activation is beyond half of the precision's range |
| P3 | loss rises by more than 0.01 nats a token, or KL(fp32 ‖ this) is above 0.01 nats |
| P4 | trained numbers are kept narrower than float32, and a tenth of the updates is below half a last place |
| P5 | the optimizer's moments are kept narrower than float32 |
| P6 | an adapter is stored narrower than float32, and a tenth of the updates is below half a last place |
| P7 | training in fp16: gradients overflow at the loss scale, or a twentieth of them becomes zero |
| P8 | fp16 is slower than fp32 on this machine |

    precision, reasons = recommend(trials, table, weights)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from luthier.ground.doctor_result import PrecisionRow, PrecisionTrial, Warned
from luthier.ground.words import count, percent, seconds, signed, size

if TYPE_CHECKING:
    from luthier.evaluation.precision_risks import StoredAdapter, TrainingRisks, WeightRange

NEAR = 0.5  # of the range: longer or stranger rows may well have twice the largest activation of a few
LOSS_LIMIT = 0.01  # nats a target token: 1 % of perplexity
KL_LIMIT = 0.01  # nats: the two distributions differ by at most sqrt(0.01 / 2), 7 points (Pinsker's inequality)
LOST_LIMIT = 0.1  # of the trained numbers
ZERO_LIMIT = 0.05  # of the gradients
FASTER = 1.1  # times as fast, before a precision with less room is preferred
SMALLER = 0.75  # of the bytes, at the same speed
SAME_SPEED = 0.95
QUANTIZED = ("int8", "nf4")
ORDER = ("fp32", "bf16", "fp16", "int8", "nf4")  # most room first


def precision_warnings(
    trials: Sequence[PrecisionTrial],
    table: Sequence[PrecisionRow] = (),
    *,
    weights: WeightRange | None = None,
    risks: TrainingRisks | None = None,
    adapter: StoredAdapter | None = None,
) -> list[Warned]:
    """Return all that would go wrong, in the order of the rules; what is not given is not judged."""
    asked = [
        _born_in_bf16(trials, weights, risks),
        *(_overflow(trial) for trial in trials),
        *(_differs(trial) for trial in trials),
        *((_lost_updates(risks), _coarse_state(risks)) if risks else ()),
        _coarse_adapter(adapter) if adapter else None,
        _fp16_gradients(risks) if risks else None,
        _slow_fp16(trials, table),
    ]
    return [warned for warned in asked if warned]


def recommend(
    trials: Sequence[PrecisionTrial], table: Sequence[PrecisionRow] = (), weights: WeightRange | None = None
) -> tuple[str, list[str]]:
    """Return the cheapest precision that is practical here and within the limits, and why, with numbers.

    A precision is preferred to one with more room if it is a tenth faster, or if it is as fast and a quarter smaller.
    Quantised weights are never preferred: they are widened before they are multiplied, so they only save memory, which
    is another wish. `trials` hold float32. Speeds are those of the machine's table where it has both, otherwise those
    of the trials. Float32 is what is left when nothing else will do.
    """
    known = {trial.precision: trial for trial in trials}
    best, reasons, passed_over = known["fp32"], [], []
    for name in (name for name in ORDER if name in known and name != "fp32"):
        trial = known[name]
        if reason := _against(trial, table, weights):
            passed_over.append(f"{name} is not taken: {reason}.")
        elif name in QUANTIZED:
            passed_over.append(f"{name} only saves memory: it has {_costs(trial, best, table)}.")
        elif not _is_cheaper(trial, best, table):
            passed_over.append(f"{name} is not taken: it has {_costs(trial, best, table)}.")
        else:
            reasons = [f"{name}: {_costs(trial, best, table)}."]
            best = trial
    return best.precision, [*reasons, _harmless(best), *passed_over]


# -- rules -------------------------------------------------------------------------------------------------------------


def _born_in_bf16(
    trials: Sequence[PrecisionTrial], weights: WeightRange | None, risks: TrainingRisks | None
) -> Warned | None:
    trial = next((trial for trial in trials if trial.precision == "fp16"), None)
    trains = risks is not None and risks.precision == "fp16"
    if weights is None or weights.born != "bf16" or (trial is None and not trains):
        return None
    outside = weights.too_large + weights.subnormal
    text = (
        f"The checkpoint was made in bf16, which reaches 3.4e38, and fp16 ends at 65,504:"
        f" {percent(outside)} of its {count(weights.weights)} weights are outside fp16's normal range"
        f" ({percent(weights.too_large)} too large, {percent(weights.zero)} would be zero)"
    )
    if trial:
        text += f", and the largest activation here, {_number(trial.largest_activation)},{_of_range(trial)}"
    fix = "train.precision: bf16 (or fp32)" if trains else "use bf16 or fp32"
    return Warned(rule="P1", text=f"{text}.", fix=fix)


def _overflow(trial: PrecisionTrial) -> Warned | None:
    if not trial.not_finite and trial.share_of_range <= NEAR:
        return None
    where = f"at {trial.largest_at}"
    if trial.not_finite:
        text = f"In {trial.precision} {count(trial.not_finite)} values were NaN or infinite, the first of them {where}"
        if trial.share_of_range > 1:
            text += f", where fp32 has {_number(trial.largest_activation)},{_of_range(trial)}"
    else:
        text = (
            f"In {trial.precision} the largest activation, {_number(trial.largest_activation)} {where},"
            f"{_of_range(trial)}, more than {percent(NEAR)}: other rows may go beyond it"
        )
    fix = "look at the weights" if trial.precision in ("fp32", "bf16") else "use bf16 or fp32, which reach 3.4e38"
    return Warned(rule="P2", text=f"{text}.", fix=fix)


def _differs(trial: PrecisionTrial) -> Warned | None:
    if trial.loss_change is None or trial.kl is None or _is_within(trial):
        return None
    text = f"{_begin(_measured(trial))}; the limits are {signed(LOSS_LIMIT, 2)} and {KL_LIMIT:.2f}."
    return Warned(rule="P3", text=text, fix="use a precision with more digits, such as fp32")


def _lost_updates(risks: TrainingRisks) -> Warned | None:
    if risks.trained_as == "fp32" or risks.lost_in_bf16 < LOST_LIMIT:
        return None
    text = (
        f"train.adapter.kind: {risks.adapter_kind} keeps what it trains in {risks.trained_as}, and an update of"
        f" {risks.update:.1e} is below half a unit in the last place for {percent(risks.lost_in_bf16)} of"
        f" {count(risks.trained)} weights: rounding to nearest would lose it; stochastic rounding, which is used,"
        " keeps it on average, with noise as large as the step of the grid."
    )
    fix = "set train.adapter.masters: fp32" if risks.adapter_kind == "full" else "keep what is trained in float32"
    return Warned(rule="P4", text=text, fix=fix)


def _coarse_state(risks: TrainingRisks) -> Warned | None:
    if risks.state_as == "fp32":
        return None
    step = {"bf16": 2.0**-9, "fp16": 2.0**-12}[risks.state_as]
    if risks.state_as == "bf16":
        why = f"Adam's second moment moves by 1 − β₂ = 0.001 of itself, which is below {step:.4f}, and never shrinks"
    else:
        why = "the square of a gradient below 0.00017 becomes zero, and the update is divided by almost nothing"
    text = f"train.optimizer: {risks.optimizer} keeps its moments in {risks.state_as}: {why}."
    return Warned(rule="P5", text=text, fix="set train.optimizer: adamw, or adamw8bit, whose codes have scales")


def _coarse_adapter(adapter: StoredAdapter) -> Warned | None:
    if adapter.stored_as == "fp32" or adapter.lost < LOST_LIMIT:
        return None
    text = (
        f"The adapter in {adapter.place} is stored in {adapter.stored_as}: an update of {adapter.learning_rate:.1e} is"
        f" below half a unit in the last place for {percent(adapter.lost)} of its {count(adapter.numbers)} numbers."
    )
    return Warned(rule="P6", text=text, fix="go on from the float32 adapter, and store it narrower only in the end")


def _fp16_gradients(risks: TrainingRisks) -> Warned | None:
    ranges = risks.gradients
    if risks.precision != "fp16" or ranges is None:
        return None
    if not ranges.too_large and ranges.zero < ZERO_LIMIT:
        return None
    text = (
        f"Of {count(ranges.count)} gradients, times the loss scale of {ranges.scale:g}, {percent(ranges.zero)} become"
        f" zero in fp16 and {percent(ranges.too_large)} are beyond 65,504 (the largest is {_number(ranges.largest)})"
    )
    text += "; steps that overflow are skipped and halve the scale." if ranges.too_large else "."
    return Warned(rule="P7", text=text, fix="set train.precision: bf16, which needs no loss scale")


def _slow_fp16(trials: Sequence[PrecisionTrial], table: Sequence[PrecisionRow]) -> Warned | None:
    known = {trial.precision: trial for trial in trials}
    if "fp16" not in known or "fp32" not in known:
        return None
    speed, how = _speed(known["fp16"], known["fp32"], table)
    if speed >= 1.0:
        return None
    text = (
        f"fp16 runs at {speed:.2f} of the speed of fp32 on this machine ({how}); the rows took"
        f" {seconds(known['fp16'].seconds)} in fp16 and {seconds(known['fp32'].seconds)} in fp32."
    )
    return Warned(rule="P8", text=text, fix="use bf16 where it is native, otherwise fp32")


# -- recommendation ----------------------------------------------------------------------------------------------------


def _against(trial: PrecisionTrial, table: Sequence[PrecisionRow], weights: WeightRange | None) -> str:
    """Return why a precision is out of the question, or nothing."""
    row = _row(trial.precision, table)
    if trial.not_finite or trial.loss is None:
        return f"{count(trial.not_finite)} values were NaN or infinite, the first at {trial.largest_at}"
    if trial.share_of_range > NEAR:
        return f"the largest activation, {_number(trial.largest_activation)},{_of_range(trial)}"
    if not _is_within(trial):
        return f"{_measured(trial)}, beyond {LOSS_LIMIT:.2f} or {KL_LIMIT:.2f}"
    if trial.precision == "fp16" and weights is not None and weights.born == "bf16":
        return (
            "the checkpoint was made in bf16, which reaches 3.4e38 where fp16 ends at 65,504; the largest activation"
            f" here, {_number(trial.largest_activation)},{_of_range(trial)}"
        )
    if row is not None and row.practical != "yes":
        what = "only to save memory" if row.practical == "only to save memory" else "not practical"
        return f"it is {what} on this machine ({_speed_words(row)})"
    return ""


def _is_cheaper(trial: PrecisionTrial, best: PrecisionTrial, table: Sequence[PrecisionRow]) -> bool:
    speed, _ = _speed(trial, best, table)
    smaller = trial.weights_bytes <= SMALLER * best.weights_bytes
    return speed >= FASTER or (speed >= SAME_SPEED and smaller)


def _costs(trial: PrecisionTrial, best: PrecisionTrial, table: Sequence[PrecisionRow]) -> str:
    speed, how = _speed(trial, best, table)
    return (
        f"{speed:.2f} times the speed of {best.precision} ({how}), and {size(trial.weights_bytes)} of weights"
        f" beside {size(best.weights_bytes)}"
    )


def _harmless(best: PrecisionTrial) -> str:
    if best.precision == "fp32":
        loss = "not a finite number" if best.loss is None else f"{best.loss:.4f} nats a token"
        return f"fp32 is the reference: its loss is {loss}, its largest activation {_number(best.largest_activation)}."
    return (
        f"{_begin(_measured(best))} (limits {LOSS_LIMIT:.2f} and {KL_LIMIT:.2f}); the largest activation,"
        f" {_number(best.largest_activation)},{_of_range(best)}."
    )


def _is_within(trial: PrecisionTrial) -> bool:
    if trial.loss_change is None or trial.kl is None:
        return trial.loss is not None
    return trial.loss_change <= LOSS_LIMIT and trial.kl <= KL_LIMIT


def _speed(trial: PrecisionTrial, other: PrecisionTrial, table: Sequence[PrecisionRow]) -> tuple[float, str]:
    """Return how many times as fast `trial` is as `other`, and how that is known."""
    rows = [_row(precision, table) for precision in (trial.precision, other.precision)]
    speeds = [row.relative_speed for row in rows if row is not None and row.relative_speed]
    if len(speeds) == 2:
        return speeds[0] / speeds[1], "matrix products"
    return other.seconds / max(trial.seconds, 1e-9), "these rows"


def _row(precision: str, table: Sequence[PrecisionRow]) -> PrecisionRow | None:
    """Return the machine's row for the arithmetic of a precision; quantised weights are multiplied in another one."""
    return next((row for row in table if row.name == precision and precision not in QUANTIZED), None)


# -- words -------------------------------------------------------------------------------------------------------------


def _measured(trial: PrecisionTrial) -> str:
    agreement = f"; the likeliest token is the same in {percent(trial.agreement)}" if trial.agreement else ""
    return (
        f"in {trial.precision} the loss changes by {_small(trial.loss_change or 0.0)} nats a token and"
        f" KL(fp32 ‖ {trial.precision}) is {trial.kl or 0.0:.2g}{agreement}"
    )


def _begin(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _small(number: float) -> str:
    return ("−" if number < 0 else "+") + f"{abs(number):.2g}"


def _of_range(trial: PrecisionTrial) -> str:
    share = trial.share_of_range
    return f" is {percent(share)} of the range" if share >= 0.0005 else " is far within the range"


def _number(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e7 else f"{value:.3g}"


def _speed_words(row: PrecisionRow) -> str:
    if row.relative_speed is None:
        return f"{row.status}"
    return f"{row.status}, {row.relative_speed:.2f} times the speed of fp32"
