"""Training every weight, as an adapter kind; the base can be had back bit for bit.

In a float32 model the weights themselves are trained. A bfloat16 model keeps its bfloat16 weights for all arithmetic,
so that it trains with the very numbers with which it will answer, and has a float32 master of each: gradients are added
to the master's as soon as they are complete, and before each forward the weights are rounded anew from masters that
have changed. Small updates are thus not lost to rounding. With `masters: none` there are no masters: the bfloat16
weights themselves are trained, and whoever updates them must round stochastically. Tied embeddings stay tied: they are
one parameter. It is saved as a model folder (config, safetensors, tokenizer) that `find_model` finds. To go back, the
base is read again from the folder that it was loaded from; it is kept in memory only if it is not there bit for bit.

    FULL.inject(model, AdapterSpec(kind="full"), seed=0)
"""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from luthier.adapters.base import ADAPTERS, FACTS, adapter_folder, facts_of, mark_injected, mark_removed
from luthier.adapters.base_weights import BaseWeights
from luthier.adapters.peft_format import refuse_other_base
from luthier.ground.errors import BadInput
from luthier.ground.files import write_json
from luthier.ground.results import Provenance
from luthier.ground.spec import AdapterSpec
from luthier.models.folder import check_folder, tensor_shapes
from luthier.models.load import folder_of
from luthier.models.masters import Master, master_of
from luthier.models.quiet import no_progress_bars

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip


@dataclass
class _State:
    """What `full` holds for one model: the way back to the base, the masters by name, and the hooks to take away."""

    base: BaseWeights
    masters: dict[str, nn.Parameter]
    rounded: dict[str, int] = field(default_factory=dict)  # version of each master that the weights were rounded from
    is_stale: bool = False  # a gradient has come since the weights were rounded, so masters may change unseen
    hooks: list[RemovableHandle] = field(default_factory=list)
    trained: dict[str, Tensor] = field(default_factory=dict)  # while switched off: weights that are their own masters
    is_on: bool = True


_STATES: weakref.WeakKeyDictionary[nn.Module, _State] = weakref.WeakKeyDictionary()


class _Full:
    """The adapter kind `full`."""

    def inject(self, model: PreTrainedModel, spec: AdapterSpec, *, seed: int) -> None:  # noqa: ARG002  # the protocol's
        mark_injected(model, self)
        weights = dict(model.named_parameters())
        own = spec.masters == "none"
        masters = {name: weight if own else master_of(weight) for name, weight in weights.items()}
        state = _State(BaseWeights.of(model, folder_of(model)), masters)
        _STATES[model] = state
        _take_over_lost_digits(state)
        for name, weight in weights.items():
            weight.requires_grad_(True)
            master = state.masters[name]
            if isinstance(master, Master):
                state.rounded[name] = master._version
                state.hooks.append(weight.register_post_accumulate_grad_hook(_hand_on(master, state)))
        if state.hooks:
            for module in dict.fromkeys((model, model.base_model)):
                state.hooks.append(module.register_forward_pre_hook(_round_before(model)))

    def trainable(self, model: PreTrainedModel) -> dict[str, nn.Parameter]:
        return dict(_state_of(model).masters)

    def save(
        self,
        model: PreTrainedModel,
        folder: Path,
        spec: AdapterSpec,
        provenance: Provenance | None,
        *,
        template_key: str | None = None,
    ) -> None:
        state = _state_of(model)
        if not state.is_on:
            raise BadInput("the adapter is switched off", fix="switch it on to save it")
        _round(model, state)
        with adapter_folder(folder) as draft:
            with no_progress_bars():
                model.save_pretrained(draft, max_shard_size="5GB")
            source = folder_of(model)
            for name in TOKENIZER_FILES if source else ():
                if source and (source / name).is_file():
                    shutil.copyfile(source / name, draft / name)
            write_json(draft / FACTS, facts_of("full", spec, provenance, template_key))

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        refuse_other_base(folder, model)
        tensors = _read_weights(model, folder)
        self.inject(model, AdapterSpec(kind="full", masters="none"), seed=0)  # to answer, no masters are needed
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(tensors[name])

    def remove(self, model: PreTrainedModel) -> None:
        state = _STATES.pop(model, None)
        if state is not None:
            for hook in state.hooks:
                hook.remove()
            state.base.put_into(model)
            model.requires_grad_(False)
            for weight in model.parameters():
                weight.grad = None
        mark_removed(model)

    def switch(self, model: PreTrainedModel, on: bool) -> None:
        state = _state_of(model)
        if on == state.is_on:
            return
        if on:
            masters: dict[str, Tensor] = {**state.masters, **state.trained}
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    weight.copy_(masters[name])
            state.trained = {}
        else:
            own = {name: master for name, master in state.masters.items() if not isinstance(master, Master)}
            state.trained = {name: weight.detach().clone() for name, weight in own.items()}
            state.base.put_into(model)
        state.is_on = on


def _take_over_lost_digits(state: _State) -> None:
    """Begin masters at the values that the files hold, which may have more digits than the model was loaded with.

    Masters on bfloat16's grid would not show an update below half a step of the grid, however many weights get one;
    with their own digits, as many cross a boundary as should.
    """
    with torch.no_grad():
        for name, value in state.base.as_stored():
            master = state.masters.get(name)
            if isinstance(master, Master) and value.dtype == torch.float32:
                master.copy_(value)


def _hand_on(master: Master, state: _State) -> Callable[[Tensor], None]:
    """Return a hook that moves a weight's complete gradient to its master, adding in float32."""

    def hand_on(weight: Tensor) -> None:
        if weight.grad is None:
            return
        gradient, weight.grad = weight.grad, None
        state.is_stale = True
        master.receive(gradient)

    return hand_on


def _round_before(model: PreTrainedModel) -> Callable[..., None]:
    reference = weakref.ref(model)

    def round_before(*_: Any) -> None:
        owner = reference()
        state = _STATES.get(owner) if owner is not None else None
        if owner is not None and state is not None and state.is_on:
            _round(owner, state)

    return round_before


def _round(model: PreTrainedModel, state: _State) -> None:
    """Round the masters that may have changed into the model's weights.

    In-place changes are seen by a tensor's version, except those of fused optimizers; but these change only what has a
    gradient, so everything is rounded anew from the first gradient until all gradients are gone.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            master = state.masters[name]
            if isinstance(master, Master) and (state.is_stale or state.rounded[name] != master._version):
                weight.copy_(master)
                state.rounded[name] = master._version
    state.is_stale = any(master.grad is not None for master in state.masters.values())


def _state_of(model: PreTrainedModel) -> _State:
    state = _STATES.get(model)
    if state is None:
        raise BadInput("the model is not being trained as a whole", fix="inject or load the adapter kind full first")
    return state


def _read_weights(model: PreTrainedModel, folder: Path) -> dict[str, Tensor]:
    """Return all weights of a model folder by parameter name, each checked for name, shape and finite values."""
    wanted = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    known = wanted | {name: tuple(buffer.shape) for name, buffer in model.named_buffers()}  # which nothing trains
    tensors: dict[str, Tensor] = {}
    for file in check_folder(folder):
        for name, shape in tensor_shapes(file).items():
            if known.get(name) != shape:
                raise BadInput(f"the weight {name} {list(shape)} does not fit this model", where=str(file))
        with safe_open(file, framework="pt") as content:
            tensors.update({name: content.get_tensor(name) for name in content.keys()})  # noqa: SIM118
    lacking = sorted(wanted.keys() - tensors.keys())
    if lacking:
        raise BadInput(f"{len(lacking)} weights are missing, such as {lacking[0]}", where=str(folder))
    for name, weight in tensors.items():
        if not torch.isfinite(weight).all():
            raise BadInput(f"the weight {name} holds NaN or infinity", where=str(folder))
    return tensors


FULL = ADAPTERS.register("full")(_Full())
