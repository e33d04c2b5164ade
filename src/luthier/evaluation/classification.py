"""What `compare` says of systems as classifiers: by label, confusion, calibration; of numbers, errors and correlations.

All systems are held to the same items, whether a head named the label or a prompted model wrote it. A written answer is
read as the metric `label` reads it: case, quotes and a final stop do not count. Nothing is generated here.

    classification(runs, LabelSet("single", ("card", "loan")), confidence=0.95, seed=0).sentence
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from luthier.evaluation import label_figures as figures
from luthier.evaluation.calibration import adaptive_reliability, calibration_error, reliability
from luthier.evaluation.comparison import clusters_of
from luthier.evaluation.metrics.labels import label_list, normal
from luthier.evaluation.metrics.numbers import number_in
from luthier.evaluation.scoring import ItemScore, SystemRun
from luthier.ground.objective_results import CalibrationBin, ClassificationResult, ClassResult, LabelResult
from luthier.ground.words import percent
from luthier.rows.labels import LabelSet

Bools = figures.Bools


def classification(
    runs: Sequence[SystemRun], labels: LabelSet, *, confidence: float = 0.95, seed: int = 0
) -> ClassificationResult:
    """Return the figures of all systems, in their order."""
    if labels.kind == "regression":
        systems = [_values(run, labels, confidence, seed) for run in runs]
    else:
        systems = [_classes(run, labels, confidence, seed) for run in runs]
    return ClassificationResult(
        kind=labels.kind, labels=list(labels.labels), systems=systems, sentence=_sentence(runs, systems, labels)
    )


def _classes(run: SystemRun, labels: LabelSet, confidence: float, seed: int) -> ClassResult:
    scores = run.scores
    place = {normal(label): number for number, label in enumerate(labels.labels)}
    true_NL = _table([_names(labels, score.item.reference) for score in scores], place)
    said = [_names(labels, score.answer.text or "") for score in scores]
    said_NL = _table(said, place)
    counts_N3L = figures.outcomes(true_NL, said_NL)
    counts_3L = counts_N3L.sum(0)
    known = np.array([all(name in place for name in names) for names in said])
    exact_N = (true_NL == said_NL).all(1) & known & np.array([score.answer.text is not None for score in scores])
    bins, error, adaptive = _calibration(scores, labels, place, true_NL)
    return ClassResult(
        system=run.name,
        accuracy=float(exact_N.mean()) if len(exact_N) else 0.0,
        macro_f1=float(figures.macro_f1(counts_3L)),
        macro_f1_interval=figures.macro_f1_interval(counts_N3L, clusters_of(scores), level=confidence, seed=seed),
        micro_f1=figures.micro_f1(counts_3L),
        ece=error,
        adaptive_ece=adaptive,
        bins=bins,
        labels=[_label(label, counts_3L[:, number]) for number, label in enumerate(labels.labels)],
        confusion=_confusion(true_NL, said_NL) if labels.kind == "single" else [],
    )


def _names(labels: LabelSet, text: str) -> list[str]:
    """Return the labels that an answer names, in the form in which they are compared."""
    return sorted(label_list(text)) if labels.kind == "multi" else [normal(text)]


def _table(names: Sequence[Sequence[str]], place: Mapping[str, int]) -> Bools:
    table_NL = np.zeros((len(names), len(place)), dtype=np.bool_)
    for row, of_item in enumerate(names):
        for name in of_item:
            if name in place:
                table_NL[row, place[name]] = True
    return table_NL


def _label(label: str, counts_3: figures.Floats) -> LabelResult:
    tp, fp, fn = map(float, counts_3)
    return LabelResult(
        label=label,
        precision=tp / (tp + fp) if tp + fp else 0.0,
        recall=tp / (tp + fn) if tp + fn else 0.0,
        f1=2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0,
        n=int(tp + fn),
    )


def _confusion(true_NL: Bools, said_NL: Bools) -> list[list[int]]:
    """Return how many items of each label were called which, the last column: none of the labels."""
    none_N1 = ~said_NL.any(1, keepdims=True)
    called_NM = np.concatenate([said_NL, none_N1], axis=1).astype(np.int64)
    return [[int(number) for number in row] for row in true_NL.astype(np.int64).T @ called_NM]


def _calibration(
    scores: Sequence[ItemScore], labels: LabelSet, place: Mapping[str, int], true_NL: Bools
) -> tuple[list[CalibrationBin], float | None, float | None]:
    """Return bins, expected calibration error and its adaptive kin; nothing without probabilities.

    single: the probability of the label named. multi: of each label's yes or no, all labels together.
    """
    sure, right = [], []
    for row, score in enumerate(scores):
        chances = score.answer.probabilities
        if chances is None:
            continue
        if labels.kind == "single":
            best = max(chances, key=lambda label: chances[label])
            sure.append(chances[best])
            right.append(float(true_NL[row, place[normal(best)]]))
        else:
            for label, chance in chances.items():
                sure.append(max(chance, 1 - chance))
                right.append(float(true_NL[row, place[normal(label)]] == (chance >= 0.5)))
    if not sure:
        return [], None, None
    bins = reliability(sure, right)
    return bins, calibration_error(bins), calibration_error(adaptive_reliability(sure, right))


def _values(run: SystemRun, labels: LabelSet, confidence: float, seed: int) -> ClassResult:
    """Return errors and correlations; an answer without a number counts as the training rows' mean."""
    true_N = np.array([float(score.item.reference) for score in run.scores])
    found = [number_in(score.answer.text or "") for score in run.scores]
    said_N = np.array([labels.mean if number is None else number for number in found])
    clusters = clusters_of(run.scores)
    measured = figures.value_figures(true_N, said_N, clusters, level=confidence, seed=seed)
    return ClassResult(
        system=run.name,
        unreadable=sum(number is None for number in found),
        **{name: value for name, (value, _) in measured.items()},
        intervals={name: span for name, (_, span) in measured.items()},
    )


def _sentence(runs: Sequence[SystemRun], systems: Sequence[ClassResult], labels: LabelSet) -> str:
    titles = {run.name: run.title for run in runs}
    if not systems:
        return ""
    if labels.kind == "regression":
        best = min(systems, key=lambda one: one.mean_absolute_error or math.inf)
        error, correlation = best.mean_absolute_error or 0.0, best.spearman or 0.0
        return f"{titles[best.system]}: mean absolute error {error:.3g}, rank correlation {correlation:.2f}."
    best = max(systems, key=lambda one: one.macro_f1 or 0.0)
    said = f"{titles[best.system]}: macro-F1 {percent(best.macro_f1 or 0.0)} over {len(labels.labels)} labels"
    if best.labels and labels.kind == "single":
        worst = min(best.labels, key=lambda one: one.f1)
        said += f", lowest for {worst.label} ({percent(worst.f1)})"
    return said + (f"; calibration error {percent(best.ece)}." if best.ece is not None else ".")
