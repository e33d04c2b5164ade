"""A classification head: one linear layer on a row's hidden state, float32, beside a model and saved with its adapter.

It begins at zero, so that every label is as likely as any other whatever the size of the hidden states, and its first
step depends on the data alone. It lies outside the model's module tree: the base keeps its names, its files and its
bits. `head.safetensors` holds the numbers, `head.json` what they mean. Losses and pooling are not computed here.

    head = HeadExtension(HeadFacts("single", ("card", "loan"), pooling="mean")); head.apply(model, seed=0)
"""

from __future__ import annotations

import dataclasses
import math
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from luthier.ground.errors import BadInput, Refused
from luthier.ground.files import write_json
from luthier.models.folder import read_json_file, tensor_shapes
from luthier.models.load import provenance_of
from luthier.models.planned import device_type

Pooling = Literal["last", "first", "mean"]
WEIGHTS, FACTS = "head.safetensors", "head.json"


@dataclass(frozen=True)
class HeadFacts:
    """What a head answers with.

    Attributes:
        kind: single (one of the labels), multi (any of them) or regression (a number).
        labels: in the order of the head's outputs; empty for regression.
        pooling: which hidden state it reads: of the last token, the first one, or the mean of all.
        mean, scale: of regression: an output z means the number mean + scale · z.
        instruction: what the model was told beside each text in training.
    """

    kind: Literal["single", "multi", "regression"]
    labels: tuple[str, ...] = ()
    pooling: Pooling = "last"
    mean: float = 0.0
    scale: float = 1.0
    instruction: str = ""

    @property
    def outputs(self) -> int:
        """How many numbers the head gives a row."""
        return 1 if self.kind == "regression" else len(self.labels)


class ClassificationHead(nn.Module):
    """Logits of pooled hidden states, in float32 or better whatever the model computes in."""

    def __init__(self, outputs: int, width: int, device: torch.device) -> None:
        super().__init__()
        self.weight_LD = nn.Parameter(torch.zeros(outputs, width, dtype=torch.float32, device=device))
        self.bias_L = nn.Parameter(torch.zeros(outputs, dtype=torch.float32, device=device))

    def forward(self, pooled_RD: Tensor) -> Tensor:
        wide = torch.promote_types(pooled_RD.dtype, self.weight_LD.dtype)
        with torch.autocast(device_type(pooled_RD.device), enabled=False):
            return functional.linear(pooled_RD.to(wide), self.weight_LD.to(wide), self.bias_L.to(wide))


_HEADS: weakref.WeakKeyDictionary[nn.Module, ClassificationHead] = weakref.WeakKeyDictionary()


class HeadExtension:
    """The head as an extension of a base model (`luthier.models.extension`)."""

    name = "head"

    def __init__(self, facts: HeadFacts) -> None:
        self.facts = facts

    def apply(self, model: PreTrainedModel, *, seed: int) -> dict[str, nn.Parameter]:  # noqa: ARG002  # it begins at zero
        """Put a head of zeros beside the model, and return its weights."""
        head = self._new(model)
        return {"head.weight": head.weight_LD, "head.bias": head.bias_L}

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write `head.safetensors` and `head.json` into an adapter's folder."""
        head = classification_head(model)
        tensors = {"weight": head.weight_LD.detach(), "bias": head.bias_L.detach()}
        save_file({name: value.float().contiguous().cpu() for name, value in tensors.items()}, folder / WEIGHTS)
        base = provenance_of(model)
        facts = {**dataclasses.asdict(self.facts), "base_sha256": base.sha256 if base else None}
        write_json(folder / FACTS, facts)

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        """Put the head that lies in `folder` beside the model.

        Raises:
            BadInput: a file is missing or damaged, or does not fit the model.
            Refused: it has other labels, or was trained on another base model.
        """
        saved = read_json_file(folder / FACTS) if (folder / FACTS).is_file() else None
        if saved is None or not (folder / WEIGHTS).is_file():
            raise BadInput(
                "there is no classification head here", where=str(folder), fix="name an adapter trained by classify"
            )
        _refuse_other_labels(self.facts, _facts_of(saved, folder), folder)
        _refuse_other_base(model, saved.get("base_sha256"), folder)
        tensors = _read_tensors(folder / WEIGHTS, {"weight": (self.facts.outputs, _width(model))})
        head = self._new(model).requires_grad_(False)
        with torch.no_grad():
            head.weight_LD.copy_(tensors["weight"])
            head.bias_L.copy_(tensors["bias"])

    def remove(self, model: PreTrainedModel) -> None:
        """Take the head away; the model itself was never changed."""
        _HEADS.pop(model, None)

    def _new(self, model: PreTrainedModel) -> ClassificationHead:
        if model in _HEADS:
            raise BadInput("the model has a classification head already", fix="remove it first")
        head = ClassificationHead(self.facts.outputs, _width(model), next(model.parameters()).device)
        _HEADS[model] = head
        return head


def classification_head(model: nn.Module) -> ClassificationHead:
    """Return the head beside a model.

    Raises:
        BadInput: there is none.
    """
    head = _HEADS.get(model)
    if head is None:
        raise BadInput("the model has no classification head", fix="train with objective: classify, or load an adapter")
    return head


def head_facts(folder: Path) -> HeadFacts:
    """Return what the head in an adapter's folder answers with.

    Raises:
        BadInput: there is no head here, or its description is damaged.
    """
    if not (folder / FACTS).is_file():
        raise BadInput(
            "there is no classification head here", where=str(folder), fix="name an adapter trained by classify"
        )
    return _facts_of(read_json_file(folder / FACTS), folder)


def _facts_of(saved: dict[str, Any], folder: Path) -> HeadFacts:
    place = str(folder / FACTS)
    try:
        labels = tuple(saved["labels"])
        facts = HeadFacts(
            kind=saved["kind"],
            labels=labels,
            pooling=saved["pooling"],
            mean=float(saved["mean"]),
            scale=float(saved["scale"]),
            instruction=str(saved["instruction"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"the head's description is damaged ({error})", where=place, fix="train again") from None
    sound = (
        facts.kind in ("single", "multi", "regression")
        and facts.pooling in ("last", "first", "mean")
        and all(isinstance(label, str) for label in labels)
        and len(set(labels)) == len(labels)
        and math.isfinite(facts.mean)
        and 0 < facts.scale < math.inf
        and (facts.kind == "regression") == (not labels)
    )
    if not sound:
        raise BadInput("the head's description does not make sense", where=place, fix="train again")
    return facts


def _refuse_other_labels(wanted: HeadFacts, found: HeadFacts, folder: Path) -> None:
    for what, here, there in (
        ("answers with", wanted.kind, found.kind),
        ("has the labels", ", ".join(wanted.labels), ", ".join(found.labels)),
        ("pools by", wanted.pooling, found.pooling),
    ):
        if here != there:
            raise Refused(
                f"the head {what} {there}, and the task with {here}" if what == "answers with" else
                f"the head {what} {there}, and {here} was wanted",
                where=str(folder),
                fix="train again, or name the adapter of this task",
            )  # fmt: skip
    if (wanted.mean, wanted.scale) != (found.mean, found.scale):
        raise Refused(
            "the head's numbers have another mean and scale than the task's training rows",
            where=str(folder),
            fix="train again, or name the adapter of this task",
        )


def _refuse_other_base(model: PreTrainedModel, sha256: object, folder: Path) -> None:
    here = provenance_of(model)
    if here is not None and sha256 and sha256 != here.sha256:
        raise Refused(
            f"this head was trained on another base model than {here.name} ({here.origin})",
            where=str(folder),
            fix="load the base model that it was trained on",
        )


def _read_tensors(file: Path, wanted: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    shapes = {**wanted, "bias": wanted["weight"][:1]}
    found = tensor_shapes(file)
    if found != shapes:
        raise BadInput(
            f"the head's tensors have the shapes {found} where {shapes} are wanted",
            where=str(file),
            fix="use the base model that it was trained on",
        )
    tensors = {name: value.to(torch.float32) for name, value in load_file(file).items()}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise BadInput(f"the head's {name} holds NaN or infinity", where=str(file), fix="use another checkpoint")
    return tensors


def _width(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    return int(getattr(config, "d_model", None) or config.hidden_size)
