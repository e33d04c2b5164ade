"""Training from the first step to the last: steps, evaluations, checkpoints, interruption and resume.

The loop decides *when*; what a step computes is `luthier.training.step`, what a loss means is the objective's, what an
adapter is and how it is saved is handed in. Everything it writes lies in the run directory.

    outcome = train_rows(model, objective, train, dev, spec, Path("runs/1"), trainable=weights, save_adapter=save)
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from luthier.ground.errors import BadInput, Interrupted, Refused
from luthier.ground.events import Tell, silent
from luthier.ground.results import EvalRecord
from luthier.ground.spec import TrainSpec
from luthier.machine.memory import PeakMemory
from luthier.models.quantized import parameter_count
from luthier.objectives.base import Objective
from luthier.rows.mixture import lengths_of
from luthier.rows.packing import pack_rows
from luthier.rows.types import Encoded
from luthier.training.batches import PlannedStep, plan_of, shortest, step_packs
from luthier.training.checkpoint import ADAPTER, Checkpoint, folder_of
from luthier.training.engine.body import engine_for
from luthier.training.fingerprint import arithmetic_of, differences, fingerprint_of, refuse_changes, refuse_unlike
from luthier.training.interrupts import StopWish, stop_wish
from luthier.training.optimizers.schedule import rate_at
from luthier.training.parallel.group import SOLO, Group, lost_as_one_sentence
from luthier.training.parallel.keeper import Keeper, run_held
from luthier.training.parallel.sharded import ShardedLoss
from luthier.training.parallel.share import share_rows
from luthier.training.parallel.step import make_step
from luthier.training.progress import Progress, TrainOutcome
from luthier.training.spikes import MOST_SKIPPED, Ceiling, ceiling_of, skipped_in_a_row
from luthier.training.step import Step, StepOutcome, TornStepError

PACK_TOKENS = 1536  # measured on CPU: packs of 600 tokens are 10 % slower, longer ones than this no faster


def train_rows(
    model: nn.Module,
    objective: Objective,
    train: Sequence[Encoded],
    dev: Sequence[Encoded],
    spec: TrainSpec,
    run: Path,
    *,
    trainable: Mapping[str, nn.Parameter],
    save_adapter: Callable[[Path], None],
    fingerprint: Mapping[str, Any] | None = None,
    autocast: torch.dtype | None = None,
    score_dev: Callable[[], float] | None = None,
    deadline_s: float | None = None,
    pack_tokens: int = PACK_TOKENS,
    resume: bool = False,
    resume_command: str = "the same command with --resume",
    group: Group = SOLO,
    root: ShardedLoss | None = None,
    tell: Tell = silent,
) -> TrainOutcome:
    """Train `trainable` on `train`, and return what came of it; the model is left with the best checkpoint's weights.

    Args:
        trainable: the trained parameters by name, float32; everything else in the model is frozen.
        save_adapter: writes what was trained into the empty folder that it gets.
        fingerprint: what else decides the run (model, tokenizer, template); a resumed run must have the same.
        autocast: compute in this dtype if the model's weights are of another (float32 masters).
        score_dev: the task's own score of the model as it stands, higher is better; it then chooses the checkpoint.
        deadline_s: stop when one more step would take the run's own seconds beyond this.
        pack_tokens: most tokens that are computed at once; decides memory, not the result.
        resume: go on from the newest whole checkpoint; an empty run directory is begun.
        resume_command: what a person types to go on, for the sentence of an interruption.
        group: the processes that train together, each of which calls this with the same rows; rank 0 writes and tells.
        root: what `shard_model` made of the model, if its weights lie in shards over the group.
        tell: hears `step`, `eval`, `save`, `resume`, `stopping` and `warning` events.

    Raises:
        BadInput: the rows cannot be trained on, the directory is in use or holds a run already, or the disk refused.
        Refused: a loss or gradient is not finite, or a resumed run differs from how it was begun.
        Interrupted: SIGINT or SIGTERM, after the step was finished and saved.
    """
    _refuse_untrainable(train)
    tell = tell if group.is_first else silent
    known = {**(fingerprint or {}), **fingerprint_of(spec, train, dev, trainable), "pack_tokens": pack_tokens}
    group.together(lambda: refuse_unlike(group.gather(known)))
    step = make_step(model, objective, trainable, spec, autocast, group, root, shortest(train))
    done = Progress()
    with (
        engine_for(model, spec, autocast, is_sharded=root is not None) as engine,
        lost_as_one_sentence(lambda: f" after step {done.step}", str(run), resume_command),
        run_held(run, group),
        PeakMemory() as peak,
        stop_wish(tell) as wish,
    ):
        training = _Training(
            model=model,
            step=step,
            train=train,
            dev=dev,
            spec=spec,
            run=run,
            trainable=trainable,
            keeper=Keeper(run, group, step, trainable, save_adapter, tell, root),
            group=group,
            fingerprint=known,
            score_dev=score_dev,
            pack_tokens=pack_tokens,
            shares=spec.prefix_sharing and engine.shares,
            arithmetic=arithmetic_of(engine.kernels),
            tell=tell,
            peak=peak,
            progress=done,
        )
        tell({"kind": "engine", "text": engine.sentence, "name": engine.name, "kernels": engine.kernels})
        if isinstance(train, list) and (kept := engine.remember_frozen([*train, *dev], spec, run, pack_tokens)):
            tell({"kind": "engine", "text": kept})  # of rows that lie on disk, states would take far more of it
        training.begin(resume)
        training.go(wish, deadline_s, resume_command)
        return training.finish()


@dataclass
class _Training:
    """One run under its lock."""

    model: nn.Module
    step: Step
    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    spec: TrainSpec
    run: Path
    trainable: Mapping[str, nn.Parameter]
    keeper: Keeper
    group: Group
    fingerprint: Mapping[str, Any]
    score_dev: Callable[[], float] | None
    pack_tokens: int
    shares: bool
    arithmetic: Mapping[str, Any]
    tell: Tell
    peak: PeakMemory
    progress: Progress

    def __post_init__(self) -> None:
        self.lengths = lengths_of(self.train)
        self.plan = plan_of(self.train, self.spec)
        self.planned_tokens = int(self.plan.tokens(self.lengths).sum())
        self.saved_step: int | None = None
        self.started = time.perf_counter()

    # -- beginning -------------------------------------------------------------------------------------------------

    def begin(self, resume: bool) -> None:
        """Start afresh, or from the newest whole checkpoint."""
        checkpoint = self.keeper.find(resume)
        if self.spec.optimizer_in_backward:
            self._tell_steps_of_several_packs()
        if checkpoint is None:
            self.keeper.begin(self.spec.seed)
        else:
            self._restore(checkpoint)

    def _tell_steps_of_several_packs(self) -> None:
        if isinstance(self.train, list):
            packs = (step_packs(self.train, planned, self.pack_tokens, self.shares) for planned in self.plan)
            several = sum(len(of_step) > 1 for of_step in packs)
        else:  # rows on disk are not all read for this
            several = int((self.plan.tokens(self.lengths) > self.pack_tokens).sum())
        if several:
            text = (
                f"{several} of {len(self.plan)} steps are longer than a pack of {self.pack_tokens:,} tokens and add up "
                "all gradients: train.optimizer_in_backward saves no memory in them; lower train.tokens_per_step"
            )
            self.tell({"kind": "warning", "text": text})

    def _restore(self, checkpoint: Checkpoint) -> None:
        refuse_changes(checkpoint.state["fingerprint"], self.fingerprint, str(self.run))
        if other := differences(checkpoint.state.get("arithmetic", self.arithmetic), self.arithmetic):
            text = f"the last bits may differ from those of an undisturbed run: {'; '.join(other)}"
            self.tell({"kind": "warning", "text": text})
        self.progress.become(checkpoint.state["progress"])
        if self.progress.stopped == "time":
            self.progress.stopped = ""
        self.saved_step = checkpoint.step
        self.started -= self.progress.seconds
        self.keeper.restore(checkpoint, self.spec.seed, self.progress.best_step, self.spec.keep)
        self.tell({"kind": "resume", "step": checkpoint.step, "total": len(self.plan), "path": str(checkpoint.path)})

    # -- going on --------------------------------------------------------------------------------------------------

    def go(self, wish: StopWish, deadline_s: float | None, resume_command: str) -> None:
        """Take steps until the run is over or somebody wants it to stop."""
        progress = self.progress
        while not progress.stopped:
            try:
                self._take_step(self.plan[progress.step])
            except Refused as refusal:
                raise self._with_last_good_state(refusal) from refusal
            late = deadline_s is not None and progress.seconds + progress.seconds_per_step > deadline_s
            late, signal_number = self._agree(late, wish.signal_number)
            improved = self._evaluate() if late or self._is_due(self.spec.eval_every) else False
            progress.stopped = self._reason_to_stop(late)
            stopping = bool(progress.stopped or signal_number)
            if stopping or improved or self._is_due(self.spec.save_every or self.spec.eval_every):
                self._save()
            if signal_number and not progress.stopped:
                raise self._interruption(signal_number, resume_command)

    def _agree(self, late: bool, signal_number: int) -> tuple[bool, int]:
        """Return, the same on every rank, whether rank 0 says it is late, and the signal that any has got."""
        told = self.group.gather_numbers([late, signal_number, self.peak.bytes])
        peaks = [peak for _, _, peak in told]
        self.progress.note_peaks(max(peaks), sum(peaks))
        return bool(told[0][0]), max(number for _, number, _ in told)

    def _take_step(self, planned: PlannedStep) -> None:
        progress, began = self.progress, time.perf_counter()
        own = share_rows(self.lengths, planned.rows, self.group.size)[self.group.rank]
        packs = step_packs(self.train, PlannedStep(planned.epoch, own), self.pack_tokens, self.shares)
        tokens = int(self.lengths[list(planned.rows)].sum())
        targets = sum(self.train[row].target_tokens for row in planned.rows)
        rate = rate_at(progress.step, len(self.plan), self.spec)
        ceiling = self._ceiling()
        outcome = self.step.run(packs, rate, ceiling)
        progress.seconds = time.perf_counter() - self.started
        record = progress.add_step(outcome, rate, tokens, targets, time.perf_counter() - began)
        progress.note_peaks(self.peak.bytes, 0)
        self.tell(
            {
                "kind": "step",
                **record.model_dump(),
                "total": len(self.plan),
                "epoch": planned.epoch,
                "tokens_per_s": progress.tokens_per_s,
                "memory_bytes": progress.peak_bytes,
                "eta_s": (self.planned_tokens - progress.tokens) / max(progress.tokens_per_s, 1e-9),
            }
        )
        self._tell_odd(outcome, planned)

    def _ceiling(self) -> Ceiling | None:
        """Return what the next step's loss and norm must not pass; a row of spikes ends the run."""
        history = self.progress.history
        if skipped_in_a_row(history) >= MOST_SKIPPED:
            raise Refused(
                f"{MOST_SKIPPED} steps in a row were skipped as spikes, so they are none",
                fix="look at the data's order, lower train.learning_rate, or raise train.spike_factor",
            )
        return ceiling_of(history, self.spec)

    def _tell_odd(self, outcome: StepOutcome, planned: PlannedStep) -> None:
        """Say that the step was skipped, or that it was a spike."""
        done = self.progress.step
        if outcome.spike:
            places = [self.train[row].place for row in planned.rows]
            left = "skipped" if outcome.skipped else "taken (train.on_spike: skip would leave it out)"
            text = f"step {done} was {left}: {outcome.spike}; its rows are {', '.join(places)}"
            self.tell({"kind": "warning", "what": "spike", "step": done, "rows": places, "text": text})
        elif outcome.skipped:
            text = f"step {done} was skipped: its gradient overflowed float16, and the loss scale is halved"
            self.tell({"kind": "warning", "what": "overflow", "step": done, "text": text})

    def _is_due(self, every: int | None) -> bool:
        """Whether the step just taken is a multiple of `every` (None: the last of its epoch), or the last of all."""
        done = self.progress.step
        if done == len(self.plan):
            return True
        return done % every == 0 if every else self.plan[done - 1].epoch != self.plan[done].epoch

    def _reason_to_stop(self, late: bool) -> str:
        progress, spec = self.progress, self.spec
        if progress.step == len(self.plan):
            return "max_steps" if progress.step == spec.max_steps else "finished"
        if spec.patience is not None and progress.worse >= spec.patience:
            return "patience"
        return "time" if late else ""

    def _evaluate(self) -> bool:
        """Measure the dev rows and the task's score; return whether this is the best so far."""
        if not self.dev and self.score_dev is None:
            return False
        devices = range(torch.cuda.device_count())
        with torch.random.fork_rng(devices):  # an evaluation must not change what training draws
            dev_loss = self._dev_loss()
            self.model.eval()
            metric = self.group.first(self.score_dev) if self.score_dev else None
        record = EvalRecord(step=self.progress.step, dev_loss=dev_loss, metric=metric)
        self.progress.evals.append(record)
        best = self.progress.better(dev_loss if metric is None else -metric, record.step)
        self.progress.seconds = time.perf_counter() - self.started
        self.tell({"kind": "eval", **record.model_dump(), "best": best})
        return best

    def _dev_loss(self) -> float | None:
        if not self.dev:
            return None
        rows = share_rows(lengths_of(self.dev), range(len(self.dev)), self.group.size)[self.group.rank]
        loss_sum, count = self.step.evaluate(pack_rows([self.dev[row] for row in rows], self.pack_tokens, self.shares))
        if count and math.isfinite(loss_sum):
            return loss_sum / count
        self.tell({"kind": "warning", "text": "the dev loss is not a finite number and chooses no checkpoint"})
        return None

    # -- keeping ---------------------------------------------------------------------------------------------------

    def _save(self) -> Path:
        progress, began = self.progress, time.perf_counter()
        path = folder_of(self.run, progress.step)
        if self.saved_step == progress.step:
            return path
        state = {"fingerprint": self.fingerprint, "arithmetic": self.arithmetic, "progress": progress.to_json()}
        self.keeper.save(progress.step, state)
        self.saved_step = progress.step
        removed = self.keeper.retain(self.spec.keep, progress.best_step)
        saved = {"kind": "save", "step": progress.step, "path": str(path), "removed": removed}
        self.tell({**saved, "seconds": time.perf_counter() - began})
        return path

    def _with_last_good_state(self, refusal: Refused) -> Refused:
        """Keep what the run had before the step that failed, and say where it lies."""
        try:
            whole = self.progress.step and not isinstance(refusal, TornStepError)
            kept = self._save() if whole else self._last_saved()
        except Refused:  # the weights themselves are broken; the checkpoint before them is the last good one
            kept = self._last_saved()
        last = f"; the last good weights are in {kept}" if kept else ""
        return Refused(f"step {self.progress.step + 1}: {refusal.what}{last}", where=refusal.where, fix=refusal.fix)

    def _last_saved(self) -> Path | None:
        return folder_of(self.run, self.saved_step) if self.saved_step else None

    def _interruption(self, signal_number: int, resume_command: str) -> Interrupted:
        how = "Ctrl-C" if signal_number == signal.SIGINT else signal.Signals(signal_number).name
        done = f"stopped by {how} after step {self.progress.step} of {len(self.plan)}, which is saved"
        return Interrupted(
            done, signal_number=signal_number, where=str(self.run), fix=f"continue with: {resume_command}"
        )

    # -- the end ---------------------------------------------------------------------------------------------------

    def finish(self) -> TrainOutcome:
        """Put the best weights into the model and tell what came of the run."""
        progress = self.progress
        best_step = self._best_whole_step()
        if best_step != progress.step:
            self.keeper.restore_weights(best_step)
        self.model.eval()
        adapter = folder_of(self.run, best_step) / ADAPTER
        last_epoch = self.plan.begins_epoch(progress.step - 1)
        return TrainOutcome(
            steps=progress.step,
            epochs=self.plan.epochs_after(progress.step),
            rows=len(self.train),
            tokens=progress.tokens,
            target_tokens=progress.target_tokens,
            seconds=progress.seconds,
            tokens_per_s=progress.tokens_per_s,
            peak_bytes=progress.peak_bytes,
            processes=self.group.size,
            total_peak_bytes=progress.total_peak_bytes,
            trainable_parameters=sum(parameter.numel() for parameter in self.trainable.values()),
            total_parameters=parameter_count(self.model),
            train_loss=progress.loss_since(last_epoch),
            dev_loss=progress.dev_loss_at(best_step),
            best_step=best_step,
            adapter=adapter,
            adapter_bytes=self.keeper.adapter_bytes(best_step),
            history=progress.history,
            evals=progress.evals,
            stopped=progress.stopped,
        )

    def _best_whole_step(self) -> int:
        best = self.progress.best_step
        if best is None or best == self.progress.step:
            return self.progress.step
        if fault := self.keeper.fault(best):
            self.tell({"kind": "warning", "text": f"the best checkpoint is damaged and the last is taken: {fault}"})
            return self.progress.step
        return best


def _refuse_untrainable(train: Sequence[Encoded]) -> None:
    if not len(train):
        raise BadInput("there are no rows to train on", fix="give data.train some rows")
    known = train if isinstance(train, list) else []  # of rows on disk each has targets, and all need not be read
    empty = [row.place for row in known if not row.target_tokens]
    if empty:
        shown = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise BadInput(f"nothing in {shown} is a target, so there is nothing to learn", fix="remove or mend these rows")
