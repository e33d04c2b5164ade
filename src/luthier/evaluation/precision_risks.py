"""What a precision would do to weights and to their training: ranges, lost updates, coarse states, gradients in fp16.

Measured on the real weights, and on gradients of one real backward with the task's own adapter; the size of an update
is by formula. Says what is, not what to do: that is `luthier.advice.precision`. Nothing is trained; a model that was
given is left as it was.

    risks = training_risks(load_in(found, base_precision(spec)), objective, rows, spec); risks.lost_in_bf16
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.adapters.base import get_kind, remove_adapter
from luthier.adapters.peft_format import WEIGHTS
from luthier.evaluation.activations import computes
from luthier.evaluation.precisions import spread
from luthier.ground.spec import TrainSpec
from luthier.models.find import Found
from luthier.models.folder import read_json_file
from luthier.objectives.base import Objective
from luthier.rows.packing import one_pack
from luthier.rows.types import Encoded
from luthier.training.loss_scale import LossScale
from luthier.training.optimizers.base import OPTIMIZERS

GRADIENT_ROWS = 4
PIECE = 1 << 22  # weights that are looked at together
SIGNIFICANT_BITS = {"fp32": 24, "fp16": 11, "bf16": 8}  # with the leading one that is not stored
FP16_LARGEST = 65504.0
FP16_NORMAL = 2.0**-14  # smaller numbers lose digits
FP16_ZERO = 2.0**-25  # numbers up to this are rounded to zero
_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_BORN = {
    "bfloat16": "bf16", "BF16": "bf16", "float16": "fp16", "F16": "fp16", "float32": "fp32", "F32": "fp32",
}  # fmt: skip


@dataclass(frozen=True)
class WeightRange:
    """How a model's weights lie in float16's range.

    Attributes:
        born: the precision that the checkpoint was made in: bf16, fp16, fp32, or "" if it was quantised or is unknown.
        too_large: share of weights beyond 65,504.
        subnormal: share of weights that are not zero and below 2^-14, where float16 loses digits.
        zero: share of weights that are not zero and become zero.
    """

    born: str
    weights: int
    largest: float
    largest_at: str
    too_large: float
    subnormal: float
    zero: float


@dataclass
class GradientRange:
    """How gradients lie in float16's range, once they are multiplied by the loss scale. Zeros do not count.

    Those of activations count with those of weights: both pass through float16.
    """

    scale: float
    count: int = 0
    too_large: float = 0.0  # shares
    subnormal: float = 0.0
    zero: float = 0.0
    largest: float = 0.0  # scaled

    def add(self, gradient: Tensor) -> None:
        """Count a gradient, not yet scaled."""
        for piece in _pieces(gradient):
            size_N = piece.abs() * self.scale
            size_N = size_N[(size_N > 0) | size_N.isnan()]
            if not len(size_N):
                continue
            before, self.count = self.count, self.count + len(size_N)
            for name, hits in _shares(size_N).items():
                setattr(self, name, (getattr(self, name) * before + hits) / self.count)
            self.largest = max(self.largest, size_N.max().item())


@dataclass(frozen=True)
class TrainingRisks:
    """What the task's training settings would do.

    Attributes:
        trained: numbers that are trained.
        trained_as: precision of the coarsest of them: fp32, bf16, fp16.
        update: size of a first update at the peak learning rate, the mean over the trained numbers.
        lost_in_bf16: share of the trained numbers whose update would be lost if they were kept in bfloat16 and rounded
            to nearest: |update| below half a unit in the last place.
        state_as: coarsest precision of the optimizer's moments; codes with scales of their own (8 bit) are not it.
        gradients: None if no rows were given.
    """

    precision: str
    adapter_kind: str
    optimizer: str
    learning_rate: float
    trained: int
    trained_as: str
    update: float
    lost_in_bf16: float
    state_as: str
    gradients: GradientRange | None = None


@dataclass(frozen=True)
class StoredAdapter:
    """How an adapter lies on the disk.

    Attributes:
        stored_as: precision of the coarsest of its tensors.
        lost: share of its numbers for which an update of the learning rate is below half a unit in the last place.
    """

    place: str
    stored_as: str
    numbers: int
    learning_rate: float
    lost: float
    shares: Mapping[str, float] = field(default_factory=dict)  # of the numbers, by precision


def weights_range(model: PreTrainedModel, found: Found | None = None) -> WeightRange:
    """Return how the weights, best given in float32, lie in float16's range, and what the checkpoint was born in."""
    total, hits, largest, place = 0, dict.fromkeys(("too_large", "subnormal", "zero"), 0.0), 0.0, ""
    on_grid = True
    for name, weight in model.named_parameters():
        total += weight.numel()
        for piece in _pieces(weight):
            on_grid = on_grid and bool((piece.to(torch.bfloat16).float() == piece).all())
            size_N = piece.abs()
            if (peak := size_N.max().item()) > largest:
                largest, place = peak, name
            hits = {key: hits[key] + more for key, more in _shares(size_N[size_N > 0]).items()}
    born = "bf16" if on_grid else born_in(found) if found else ""
    return WeightRange(born, total, largest, place, **{key: value / max(1, total) for key, value in hits.items()})


def born_in(found: Found) -> str:
    """Return the precision that a checkpoint was made in, as its files say: bf16, fp16, fp32, or "".

    The config's own word counts before that of the file, since float32 files are made of bfloat16 checkpoints.
    """
    stored = _BORN.get(found.stored_as.split(" (")[0], "")
    if found.format != "safetensors":
        return stored
    config = read_json_file(found.folder / "config.json")
    inner = config.get("text_config")
    words = [part.get(key) for part in (config, inner if isinstance(inner, dict) else {}) for key in _DTYPE_KEYS]
    said = next((_BORN[word] for word in words if isinstance(word, str) and word in _BORN), "")
    return said if said in ("bf16", "fp16") and stored in ("fp32", "") else stored or said


_DTYPE_KEYS = ("dtype", "torch_dtype")


def training_risks(
    model: PreTrainedModel, objective: Objective, rows: Sequence[Encoded], spec: TrainSpec
) -> TrainingRisks:
    """Return what training with `spec` would do.

    Args:
        model: the base model in the precision that training loads it in, frozen and without an adapter.
        rows: `GRADIENT_ROWS` of them are used for one backward; none: gradients are not looked at.
    """
    kind = get_kind(spec.adapter.kind)
    kind.inject(model, spec.adapter, seed=spec.seed)
    try:
        trainable = kind.trainable(model)
        updates = [first_update(weight, spec) for weight in trainable.values()]
        numbers = [weight.numel() for weight in trainable.values()]
        lost = [lost_updates(w, u, "bf16") for w, u in zip(trainable.values(), updates, strict=True)]
        return TrainingRisks(
            precision=spec.precision,
            adapter_kind=spec.adapter.kind,
            optimizer=spec.optimizer,
            learning_rate=spec.learning_rate,
            trained=sum(numbers),
            trained_as=_coarsest(weight.dtype for weight in trainable.values()),
            update=sum(u * n for u, n in zip(updates, numbers, strict=True)) / max(1, sum(numbers)),
            lost_in_bf16=sum(lost) / max(1, sum(numbers)),
            state_as=state_precision(spec.optimizer),
            gradients=_gradients(model, objective, rows, trainable) if rows else None,
        )
    finally:
        remove_adapter(model)


def stored_adapter(folder: Path, learning_rate: float) -> StoredAdapter:
    """Return how the LoRA adapter in `folder` is stored, and what an update of the learning rate is beside that."""
    tensors = load_file(folder / WEIGHTS)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    stored_as = _coarsest(tensor.dtype for tensor in tensors.values())
    lost = sum(lost_updates(tensor, learning_rate, stored_as) for tensor in tensors.values())
    names = [(_NAMES.get(tensor.dtype, "fp32"), tensor.numel()) for tensor in tensors.values()]
    shares = {name: sum(n for key, n in names if key == name) / numbers for name, _ in names}
    return StoredAdapter(str(folder), stored_as, numbers, learning_rate, lost / max(1, numbers), shares)


def first_update(weight: Tensor, spec: TrainSpec) -> float:
    """Return the size of an optimizer's first update of each number of a weight, at the peak learning rate.

    Adam divides its first moment by the root of its second, so a first update is the learning rate whatever the
    gradient (Kingma & Ba 2015, section 2.1); Adafactor's is relative to the weight's root mean square, of which it
    takes at least 1e-3 (Shazeer & Stern 2018, section 8). A plug-in is taken to be like Adam.
    """
    if spec.optimizer != "adafactor":
        return spec.learning_rate
    norm: float = torch.linalg.vector_norm(weight.detach(), dtype=torch.float32).item()
    return max(1e-3, norm / math.sqrt(weight.numel())) * min(spec.learning_rate, 1.0)


def lost_updates(weight: Tensor, update: float, precision: str) -> int:
    """Return how many numbers of `weight`, kept in `precision`, do not move when `update` is added away from zero.

    With p significant bits, numbers from 2^(e-1) to 2^e stand 2^(e-p) apart, and rounding to nearest loses what is
    below half of that (2^-9 to 2^-8 of the number in bfloat16). Zeros always move.
    """
    bits = SIGNIFICANT_BITS[precision]
    narrow = next(dtype for dtype, name in _NAMES.items() if name == precision)
    lost = 0
    for piece in _pieces(weight):
        _, exponent_N = torch.frexp(piece.to(narrow).float())
        half_N = torch.exp2((exponent_N - bits - 1).float())
        if precision == "fp16":
            half_N = half_N.clamp(min=FP16_ZERO)
        lost += int(((half_N > update) & (piece != 0)).sum())
    return lost


def state_precision(optimizer: str) -> str:
    """Return the coarsest precision of an optimizer's floating-point state."""
    state = OPTIMIZERS.get(optimizer).fresh((128, 128), torch.device("meta"))
    return _coarsest(tensor.dtype for tensor in state.values() if tensor.is_floating_point())


def _gradients(
    model: PreTrainedModel, objective: Objective, rows: Sequence[Encoded], trainable: Mapping[str, nn.Parameter]
) -> GradientRange:
    """Return the range of the gradients of the summed loss, of weights and of what leaves each module."""
    ranges = GradientRange(LossScale().value)

    def look(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(ranges.add)  # type: ignore[no-untyped-call]

    hooks = [module.register_forward_hook(look) for module in model.modules() if computes(module)]
    was_training = model.training
    try:
        model.train()
        loss, _ = objective.loss(model, one_pack(spread(rows, GRADIENT_ROWS)))
        loss.backward()  # type: ignore[no-untyped-call]
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    for weight in trainable.values():
        if weight.grad is not None:
            ranges.add(weight.grad)
            weight.grad = None
    return ranges


def _shares(size_N: Tensor) -> dict[str, float]:
    """Return how many sizes, none of them zero, are too large for float16, subnormal in it, and zero in it."""
    return {
        "too_large": float((~(size_N <= FP16_LARGEST)).sum()),
        "subnormal": float((size_N < FP16_NORMAL).sum()),
        "zero": float((size_N <= FP16_ZERO).sum()),
    }


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the numbers in float32, a few at a time."""
    for piece in torch.split(tensor.detach().reshape(-1), PIECE):
        yield piece.float()


def _coarsest(dtypes: Iterable[torch.dtype]) -> str:
    names = {_NAMES.get(dtype, "fp32") for dtype in dtypes}
    return min(names, key=lambda name: SIGNIFICANT_BITS[name], default="fp32")
