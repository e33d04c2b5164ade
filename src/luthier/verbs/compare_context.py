"""What a longer window brought: the base model, the base with scaled positions alone, and the finetuned one.

Each is asked for passkeys and needles, and reads the held-out general text (`data.general`, or else the test rows) for
its loss by position. The base model is asked beyond its window too, where its own generation would refuse.

    context_result(bench, training, tell).sentence
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from transformers import PreTrainedModel

from luthier.evaluation.long_context import TESTS, Encode, Trial, make_trials, run_trials
from luthier.evaluation.position_loss import edges_of, mean_by_bin, position_losses
from luthier.generation.engine import Generator
from luthier.ground.events import Tell
from luthier.ground.objective_results import ContextResult, PositionLoss, RetrievalCell
from luthier.ground.results import TrainResult
from luthier.ground.spec import ContextSpec
from luthier.ground.words import percent
from luthier.models.context import ContextExtension, Extended, extended
from luthier.models.extension import applied
from luthier.rows.types import Encoded, Message, Row
from luthier.verbs.trained import trained_in
from luthier.verbs.workbench import Workbench

BASE, SCALED, FINETUNED = "base", "base, positions scaled", "finetuned"


def context_result(bench: Workbench, training: TrainResult | None, tell: Tell) -> ContextResult | None:
    """Return what the longer window brought; None if the task has none, or did not train for it."""
    spec = bench.spec.context
    if spec is None or training is None:
        return None
    adapter = Path(training.adapter)
    window = extended(bench.config, spec)
    model = bench.model(bench.spec.generation.precision).model
    read = bench.general_rows() or bench.rows("test")
    rows = [_encoded(bench, row) for row in read]
    encode = _encoder(bench)
    trials = _trials(spec, window, encode)
    tokens = sum(trial.length for trial in trials)
    cells: list[RetrievalCell] = []
    positions: list[PositionLoss] = []
    short_loss: dict[str, float] = {}
    for system, prepared in _systems(bench, spec, model, adapter).items():
        tell(
            {"kind": "stage", "text": f"{system}: {len(trials)} passkeys and needles ({tokens:,} tokens), and its loss"}
        )
        with prepared:
            generator = Generator(model, bench.renderer.tokenizer, bench.renderer.end_ids, window=window.window)
            cells += run_trials(system, generator, encode, trials, tell)
            position, short = _losses(system, model, rows, window)
        positions.append(position)
        short_loss.update({system: short} if short is not None else {})
    return ContextResult(
        old_window=window.original,
        new_window=window.window,
        method=spec.method,
        factor=spec.factor,
        positions=positions,
        cells=cells,
        short_loss=short_loss,
        sentence=_sentence(window, cells, short_loss),
    )


def _systems(
    bench: Workbench, spec: ContextSpec, model: PreTrainedModel, adapter: Path
) -> Mapping[str, AbstractContextManager[object]]:
    plain = spec.model_copy(update={"shifted": False})
    return {
        BASE: contextlib.nullcontext(),
        SCALED: applied(model, [ContextExtension(plain)], seed=0),
        FINETUNED: trained_in(model, bench.objective.extensions, adapter),
    }


def _encoded(bench: Workbench, row: Row) -> Encoded:
    """Return a row as tokens that all systems know, all of a text or the answers of a conversation as targets."""
    if row.text is not None:
        return bench.renderer.encode_row(Row(row.id, row.place, text=row.text))
    return bench.renderer.encode_row(bench.training_row(row))


def _encoder(bench: Workbench) -> Encode:
    """Return how a text becomes a prompt: raw for a model that is trained on raw text, otherwise a user's turn."""
    if bench.objective.answers == "likelihood" or all(row.messages is None for row in bench.rows("test")):
        renderer = bench.renderer

        def raw(text: str) -> list[int]:
            ids = renderer.tokens.encode_document(text)
            return ids[:-1] if ids and ids[-1] == renderer.tokens.eos_id else ids

        return raw
    return lambda text: bench.ask(Row("trial", "trial", messages=(Message("user", text),)))


def _trials(spec: ContextSpec, window: Extended, encode: Encode) -> list[Trial]:
    lengths = spec.lengths or _lengths(window)
    depths = [n / (spec.depths - 1) for n in range(spec.depths)] if spec.depths > 1 else [0.5]
    return [
        trial
        for test in TESTS
        for trial in make_trials(encode, test, lengths=lengths, depths=depths, n=spec.trials, seed=0)
    ]


def _lengths(window: Extended) -> list[int]:
    """Return the old window halved, whole, and doubled up to the new one."""
    lengths = [window.original // 2, window.original]
    while lengths[-1] * 2 < window.window:
        lengths.append(lengths[-1] * 2)
    return [*lengths, window.window]


def _losses(
    system: str, model: PreTrainedModel, rows: list[Encoded], window: Extended
) -> tuple[PositionLoss, float | None]:
    """Return the loss by position in texts up to the new window, and the mean loss within the old one."""
    losses = position_losses(model, rows, window.window)
    edges, means = mean_by_bin(losses, edges_of(window.original, window.window))
    _, within = mean_by_bin(losses, [0, window.original])
    return PositionLoss(system=system, edges=edges, loss=means), within[0] if within else None


def _sentence(window: Extended, cells: list[RetrievalCell], short_loss: Mapping[str, float]) -> str:
    def share(system: str) -> str:
        beyond = [c for c in cells if c.system == system and c.test == "passkey" and c.length > window.original]
        return percent(sum(c.right for c in beyond) / max(1, sum(c.n for c in beyond)))

    kept = ""
    if short_loss.get(BASE) and FINETUNED in short_loss:
        change = short_loss[FINETUNED] / short_loss[BASE] - 1
        kept = f" The loss within the old window changed by {100 * change:+.1f}%."
    return (
        f"Beyond the old window of {window.original:,} tokens and up to {window.window:,}, {share(FINETUNED)} of the "
        f"passkeys are found after training; {share(BASE)} by the base model, {share(SCALED)} by scaled positions "
        f"alone.{kept}"
    )
