"""The kit that every objective passes, built in or brought by a plug-in: one call, in float64, on a tiny model.

It checks that the loss is a sum that adds up over any split, order and packing; that its gradient is the derivative of
its value; that a position outside the mask contributes nothing; and, if given, that a NumPy reference agrees. It does
not check whether the objective is a good idea.

    check_objective(objective, tiny_model, rows, reference=cross_entropy_in_numpy)
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.models.head import classification_head
from luthier.objectives.base import Objective
from luthier.rows.packing import one_pack
from luthier.rows.types import Encoded, Pack, Row

FloatArray = npt.NDArray[np.float64]
Reference = Callable[[Sequence[FloatArray], Sequence[Encoded]], float]
"""Takes each row's logits [T, V], as the model gives them for that row alone, and the rows; returns the loss sum."""

DIRECTIONS = 3  # random directions of the finite differences
STEP = 1e-5  # of a finite difference: in float64 its error is about STEP², far below the tolerance
_EXTRA: weakref.WeakKeyDictionary[nn.Module, list[nn.Parameter]] = weakref.WeakKeyDictionary()  # of the objective
SINGLE_TARGETS = 6  # targets that are looked at alone, per row


def check_objective(
    objective: Objective,
    model: nn.Module,
    rows: Sequence[Row],
    *,
    reference: Reference | None = None,
    seed: int = 0,
    tolerance: float = 1e-6,
) -> None:
    """Check one objective on a model and a few rows of unequal length, at least two of them with targets.

    What the objective puts into the model is put into copies of it; where it begins at zero it is filled at random, as
    after some training, and it is trained along. Rows with labels have one target, whose own token counts; the
    reference gets what the head says at each token, [T, L]. An encoder's tokens may all look at each other.

    The model must compute in float64 when it is asked to: GPT-2's does, but the norms of Llama's family round to
    float32, in which no finite difference says anything.

    Raises:
        AssertionError: the first promise that is broken, in a sentence.
    """
    narrow, wide = (_extended(model, objective, dtype, seed) for dtype in (torch.float32, torch.float64))
    encoded = [objective.encode(row) for row in rows]
    generator = np.random.default_rng(seed)
    _check_masks(encoded)
    _check_value(objective, narrow, wide, one_pack(encoded))
    _check_additivity(objective, wide, encoded, generator, tolerance)
    _check_gradient(objective, wide, one_pack(encoded), generator, tolerance)
    for row in encoded:
        _check_single_targets(objective, wide, row, generator, tolerance)
    if reference is not None:
        _check_reference(objective, wide, encoded, reference, tolerance)


def _check_masks(encoded: Sequence[Encoded]) -> None:
    for row in encoded:
        assert len(row.ids_T) == len(row.target_T), f"{row.place}: ids and mask differ in length"
        assert row.label_L is not None or not row.target_T[:1].any(), (
            f"{row.place}: the first token is a target, but nothing predicts it"
        )
    assert sum(row.target_tokens > 0 for row in encoded) >= 2, "the kit needs at least two rows with targets"


def _extended(model: nn.Module, objective: Objective, dtype: torch.dtype, seed: int) -> nn.Module:
    """Return a copy of the model in a precision, with what the objective puts into it."""
    own = copy.deepcopy(model).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    extra: dict[str, nn.Parameter] = {}
    for extension in objective.extensions:
        assert isinstance(own, PreTrainedModel)
        extra.update(extension.apply(own, seed=seed))
    for parameter in extra.values():
        values = parameter.data if parameter.any() else torch.randn(parameter.shape, generator=generator)
        parameter.data = values.to(dtype)
    _EXTRA[own] = list(extra.values())
    return own


def _check_value(objective: Objective, narrow: nn.Module, wide: nn.Module, pack: Pack) -> None:
    loss, count = objective.loss(narrow, pack)
    assert loss.shape == () and loss.dtype == torch.float32, f"the sum must be a float32 scalar, not {loss.dtype}"
    assert isinstance(count, int | float) and count > 0, f"the count must be a positive number, not {count!r}"
    first, again = (objective.loss(wide, pack)[0].item() for _ in range(2))
    assert first == again, f"two evaluations of the same pack differ: {first} and {again}"


def _check_additivity(
    objective: Objective, model: nn.Module, encoded: Sequence[Encoded], generator: np.random.Generator, tolerance: float
) -> None:
    """One pack, one row at a time, another order and random splits give the same sum, count and gradient."""
    whole = _sums(objective, model, [one_pack(encoded)])
    shuffled = [encoded[index] for index in generator.permutation(len(encoded))]
    arrangements = {
        "one row at a time": [one_pack([row]) for row in encoded],
        "another order": [one_pack(shuffled)],
        "a random split": _random_packs(shuffled, generator),
    }
    for name, packs in arrangements.items():
        loss, count, gradient = _sums(objective, model, packs)
        assert _close(count, whole[1], tolerance), f"{name}: counts {count} targets instead of {whole[1]}"
        assert _close(loss, whole[0], tolerance), f"{name}: the sum is {loss} instead of {whole[0]}"
        apart = (gradient - whole[2]).norm() / whole[2].norm()
        assert apart < tolerance, f"{name}: the gradient is {apart:.1e} away"


def _check_gradient(
    objective: Objective, model: nn.Module, pack: Pack, generator: np.random.Generator, tolerance: float
) -> None:
    """The gradient equals central differences of the value, along random directions of all trained parameters."""
    _, _, gradient = _sums(objective, model, [pack])
    parameters = _trained(model)
    start = nn.utils.parameters_to_vector(parameters).detach().clone()
    for _ in range(DIRECTIONS):
        direction = torch.from_numpy(generator.standard_normal(len(start))).to(start)
        direction /= direction.norm()
        ahead, behind = (_value_at(objective, model, pack, start + sign * STEP * direction) for sign in (1, -1))
        _move(parameters, start)
        difference, expected = (ahead - behind) / (2 * STEP), float(gradient @ direction)
        scale = max(abs(expected), float(gradient.norm()) * len(start) ** -0.5)
        assert abs(difference - expected) < tolerance * 10 * scale, (
            f"the gradient says {expected}, finite differences say {difference}"
        )


def _check_single_targets(
    objective: Objective, model: nn.Module, row: Encoded, generator: np.random.Generator, tolerance: float
) -> None:
    """Targets add up one by one, and none looks at a token at or after its own place."""
    places = np.flatnonzero(row.target_T)
    if len(places) > SINGLE_TARGETS:
        places = np.sort(generator.choice(places, SINGLE_TARGETS, replace=False))
    total = 0.0
    for place in places:
        loss, gradient_TD = _input_gradient(objective, model, _only(row, [int(place)]))
        end = place + (row.label_L is not None)  # a label's own token may be looked at, a word's own must not
        both_ways = objective.context.architecture == "encoder"
        assert both_ways or not gradient_TD[end:].any(), (
            f"{row.place}: the target at {place} depends on tokens at or after it"
        )
        assert gradient_TD[:end].any(), f"{row.place}: the target at {place} depends on nothing before it"
        total += loss
    if len(places):
        together, _ = _input_gradient(objective, model, _only(row, [int(place) for place in places]))
        assert _close(together, total, tolerance), (
            f"{row.place}: positions outside the mask contribute {together - total}"
        )


def _check_reference(
    objective: Objective, model: nn.Module, encoded: Sequence[Encoded], reference: Reference, tolerance: float
) -> None:
    with torch.no_grad():
        logits = [_outputs(model, row).double().numpy() for row in encoded]
    expected = reference(logits, encoded)
    loss = objective.loss(model, one_pack(encoded))[0].item()
    assert _close(loss, expected, tolerance), f"the sum is {loss}, the reference says {expected}"


def _inputs(row: Encoded) -> dict[str, Tensor]:
    ids_1T = torch.from_numpy(row.ids_T)[None]
    if row.encoder_S is None:
        return {"input_ids": ids_1T}
    return {"input_ids": torch.from_numpy(row.encoder_S)[None], "decoder_input_ids": ids_1T}


def _outputs(model: nn.Module, row: Encoded) -> Tensor:
    """Return what the model's own forward gives for one row alone: logits [T, V], or the head's scores [T, L]."""
    if row.label_L is None:
        logits_TV: Tensor = model(**_inputs(row)).logits[0]
        return logits_TV
    assert isinstance(model, PreTrainedModel)
    scores_TL: Tensor = classification_head(model)(model.base_model(**_inputs(row)).last_hidden_state[0])
    return scores_TL


def _sums(objective: Objective, model: nn.Module, packs: Sequence[Pack]) -> tuple[float, float, Tensor]:
    for parameter in _trained(model):
        parameter.grad = None
    total, count = 0.0, 0.0
    for pack in packs:
        loss, targets = objective.loss(model, pack)
        loss.backward()  # type: ignore[no-untyped-call]
        total, count = total + loss.item(), count + targets
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in _trained(model)]
    return total, count, torch.cat([part.flatten() for part in parts])


def _input_gradient(objective: Objective, model: PreTrainedModel, row: Encoded) -> tuple[float, Tensor]:
    """Return the loss of one row, and its gradient with respect to each token's embedding, [T, D]."""
    leaves: list[Tensor] = []

    def detach(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    reads = model if row.encoder_S is None else model.get_decoder()
    hook = reads.get_input_embeddings().register_forward_hook(detach)
    try:
        loss, _ = objective.loss(model, one_pack([row]))
        (gradient,) = torch.autograd.grad(loss, leaves)
    finally:
        hook.remove()
    return loss.item(), gradient.reshape(-1, gradient.shape[-1])[: len(row.ids_T)]  # a model may fill up its packs


def _value_at(objective: Objective, model: nn.Module, pack: Pack, vector: Tensor) -> float:
    _move(_trained(model), vector)
    with torch.no_grad():
        return objective.loss(model, pack)[0].item()


def _move(parameters: Sequence[nn.Parameter], vector: Tensor) -> None:
    with torch.no_grad():
        for parameter, part in zip(parameters, torch.split(vector, [p.numel() for p in parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))


def _trained(model: nn.Module) -> list[nn.Parameter]:
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in own}
    return own + [parameter for parameter in _EXTRA.get(model, ()) if id(parameter) not in known]


def _only(row: Encoded, places: Sequence[int]) -> Encoded:
    target_T = np.zeros_like(row.target_T)
    target_T[list(places)] = True
    return replace(row, target_T=target_T)


def _random_packs(rows: Sequence[Encoded], generator: np.random.Generator) -> list[Pack]:
    cuts = sorted({0, len(rows), *generator.integers(1, len(rows), size=2).tolist()})
    return [one_pack(rows[start:end]) for start, end in pairwise(cuts)]


def _close(a: float, b: float, tolerance: float) -> bool:
    return abs(a - b) <= tolerance * max(1.0, abs(b))
