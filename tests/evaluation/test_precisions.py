"""Precisions are tried: loss and KL against NumPy, overflow and NaN found at their module, one model at a time."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from evaluation.precision_rows import make_rows
from luthier.evaluation import precisions
from luthier.evaluation.activations import Watch
from luthier.evaluation.precisions import load_in, narrowed, try_precisions
from luthier.ground.doctor_result import PrecisionTrial
from luthier.ground.errors import BadInput
from luthier.models.find import find_model
from luthier.rows.types import Encoded
from models.tiny_models import FAMILIES, tiny_folder, tiny_model


def from_models(models: dict[str, PreTrainedModel]) -> Callable[[str], PreTrainedModel]:
    return lambda precision: models[precision]


def from_one(model: PreTrainedModel) -> Callable[[str], PreTrainedModel]:
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return lambda precision: narrowed(copy.deepcopy(model), dtypes[precision])


def noisy(model: PreTrainedModel, size: float) -> PreTrainedModel:
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn_like(weight) * size)
    return other


def by_name(trials: Sequence[PrecisionTrial]) -> dict[str, PrecisionTrial]:
    return {trial.precision: trial for trial in trials}


def numpy_logprobs(model: PreTrainedModel, row: Encoded) -> np.ndarray[Any, Any]:
    """Log-probabilities in float64 at each target of a row that runs alone, [N, V]."""
    with torch.no_grad():
        logits_TV = model(torch.from_numpy(row.ids_T)[None]).logits[0].double().numpy()
    before_NV = logits_TV[np.flatnonzero(row.target_T) - 1]
    return before_NV - np.log(np.exp(before_NV).sum(-1, keepdims=True))


@pytest.mark.parametrize("positions", [64, 3])
def test_loss_kl_and_agreement_are_those_of_numpy(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "POSITIONS", positions)
    monkeypatch.setattr(precisions, "PACK_TOKENS", 40)  # several packs
    monkeypatch.setattr(precisions, "CHUNK", 4)  # several chunks of a pack
    model = tiny_model()
    other, rows = noisy(model, 0.02), make_rows()
    losses, kls, agreed = {"fp32": [], "other": []}, [], []
    for row in rows:
        p_NV, q_NV = numpy_logprobs(model, row), numpy_logprobs(other, row)
        targets_N = row.ids_T[row.target_T]
        for name, logprobs_NV in (("fp32", p_NV), ("other", q_NV)):
            losses[name].extend(-logprobs_NV[np.arange(len(targets_N)), targets_N])
        count = min(positions, len(targets_N))
        kept = np.arange(count) * len(targets_N) // count
        kls.extend((np.exp(p_NV) * (p_NV - q_NV)).sum(-1)[kept])
        agreed.extend((p_NV.argmax(-1) == q_NV.argmax(-1))[kept])
    reference, trial = try_precisions(from_models({"fp32": model, "other": other}), rows, ("other",))
    assert reference.loss == pytest.approx(np.mean(losses["fp32"]), rel=1e-5)
    assert (reference.loss_change, reference.kl, reference.agreement) == (0.0, 0.0, 1.0)
    assert trial.loss == pytest.approx(np.mean(losses["other"]), rel=1e-5)
    assert trial.loss_change == pytest.approx(np.mean(losses["other"]) - np.mean(losses["fp32"]), abs=1e-5)
    assert trial.kl == pytest.approx(np.mean(kls), rel=1e-4) and trial.kl > 1e-4
    assert trial.agreement == pytest.approx(np.mean(agreed)) and trial.agreement < 1


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_runs_in_every_precision(family: str) -> None:
    trials = by_name(try_precisions(from_one(tiny_model(family)), make_rows(3)))
    assert list(trials) == ["fp32", "bf16", "fp16"]
    for name, trial in trials.items():
        assert trial.not_finite == 0 and trial.largest_activation > 0 and trial.seconds > 0
        assert name == "fp32" or (trial.kl is not None and 0 < trial.kl < 0.05)
    assert trials["fp16"].kl < trials["bf16"].kl, "fp16 has three digits more"
    assert trials["bf16"].weights_bytes == trials["fp16"].weights_bytes < 0.6 * trials["fp32"].weights_bytes
    assert trials["fp16"].share_of_range == pytest.approx(trials["fp16"].largest_activation / 65504)


def test_a_weight_that_overflows_float16_is_caught_and_its_module_named() -> None:
    model = tiny_model()
    place = "model.layers.1.mlp.up_proj"
    with torch.no_grad():
        model.get_submodule(place).weight[5] = 30_000.0  # a number that float16 still holds
    trials = by_name(try_precisions(from_one(model), make_rows()))
    fp16, bf16 = trials["fp16"], trials["bf16"]
    assert fp16.not_finite > 0 and fp16.largest_at == place
    assert fp16.largest_activation > 65504 and fp16.share_of_range > 1
    assert fp16.largest_activation == pytest.approx(bf16.largest_activation, rel=0.5) or bf16.largest_at != place
    assert fp16.loss is None and fp16.kl is None and fp16.agreement is None and fp16.loss_change is None
    assert bf16.not_finite == 0 and bf16.loss is not None and bf16.share_of_range < 1e-30


def test_a_product_that_overflows_between_modules_is_seen_where_it_goes_in() -> None:
    model = tiny_model()
    mlp = model.get_submodule("model.layers.0.mlp")
    with torch.no_grad():
        for layer in (mlp.up_proj, mlp.gate_proj):
            layer.weight.mul_(1000 / layer.weight.abs().max())
    fp16 = by_name(try_precisions(from_one(model), make_rows()))["fp16"]
    assert fp16.not_finite > 0 and fp16.largest_at == "model.layers.0.mlp.down_proj" and fp16.share_of_range > 1


def test_a_planted_nan_is_caught_in_every_precision() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_submodule("model.layers.1.self_attn.o_proj").weight[3, 4] = torch.nan
    for trial in try_precisions(from_one(model), make_rows()):
        assert trial.not_finite > 0 and trial.largest_at == "model.layers.1.self_attn.o_proj"
        assert trial.loss is None and trial.kl is None and trial.share_of_range < 1


def test_a_precision_is_not_compared_with_a_broken_reference() -> None:
    model, broken = tiny_model(), tiny_model()
    with torch.no_grad():
        broken.get_input_embeddings().weight.fill_(torch.nan)
    trial = try_precisions(from_models({"fp32": broken, "bf16": model}), make_rows(), ("bf16",))[1]
    assert trial.loss is not None and trial.loss_change is None and trial.kl is None and trial.agreement is None


def test_tokens_that_fill_a_pack_up_do_not_count() -> None:
    """The filler is token 0; no row has it."""
    model = tiny_model("qwen2")  # its embedding and head are two
    rows = make_rows(1)
    plain = try_precisions(from_one(model), rows, ())[0].largest_activation
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = 1e6
    assert len(rows[0]) % 16
    assert try_precisions(from_one(model), rows, ())[0].largest_activation == pytest.approx(plain)


def test_the_largest_activation_is_that_of_a_plain_search() -> None:
    model, rows = tiny_model(), make_rows(1)
    seen: dict[str, float] = {}

    def look(path: str) -> Callable[..., None]:
        def hook(_: object, inputs: tuple[Any, ...], output: Any) -> None:
            tensors = [*inputs, *(output if isinstance(output, tuple) else (output,))]
            values = [x.abs().max().item() for x in tensors if isinstance(x, torch.Tensor) and x.is_floating_point()]
            seen[path] = max([seen.get(path, 0.0), *values])

        return hook

    hooks = [module.register_forward_hook(look(path)) for path, module in model.base_model.named_modules() if path]
    numpy_logprobs(model, rows[0])
    for hook in hooks:
        hook.remove()
    with Watch(model.base_model) as watch:
        numpy_logprobs(model, rows[0])
    largest, place = watch.largest
    assert largest == max(seen.values()) == seen[place]


class HeldLinear(nn.Linear):
    """A linear layer that keeps its weight in a module of its own, as quantised ones do."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base.in_features, base.out_features, bias=False)
        self.held = nn.Identity()
        self.weight = base.weight


def test_linear_layers_that_hold_parts_are_watched() -> None:
    model = tiny_model()
    path = "model.layers.1.mlp.down_proj"
    model.set_submodule(path, HeldLinear(model.get_submodule(path)))
    with Watch(model) as watch, torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))
    assert {(path, "in"), (path, "out"), ("model.layers.1", "out"), ("lm_head", "out")} <= watch.peaks.keys()


def test_a_watch_leaves_the_model_as_it_was() -> None:
    model = tiny_model()
    with Watch(model) as watch, torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))
    assert watch.peaks and not any(module._forward_hooks for module in model.modules())


def test_one_model_is_in_memory_at_a_time() -> None:
    earlier: list[weakref.ref[nn.Module]] = []

    def load(_: str) -> PreTrainedModel:
        assert all(part() is None for part in earlier), "an earlier model is still there"
        model = tiny_model()
        earlier.extend(weakref.ref(module) for module in model.modules())
        return model

    gc.disable()
    try:
        try_precisions(load, make_rows(), ("fp32", "a", "b"))
    finally:
        gc.enable()
    assert len(earlier) == 3 * len(list(tiny_model().modules()))


def test_few_rows_are_taken_from_all_over_and_their_positions_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(50)
    assert [row.place for row in precisions.spread(rows, 5)] == ["t:0", "t:10", "t:20", "t:30", "t:40"]
    monkeypatch.setattr(precisions, "KEPT_BYTES", 4 * 96 * 16 * 2)  # room for two positions of each of 16 rows
    seen: list[int] = []
    kept = precisions._kept
    monkeypatch.setattr(precisions, "_kept", lambda pack, per_row: seen.append(per_row) or kept(pack, per_row))
    try_precisions(from_one(tiny_model()), rows, ())
    assert seen and set(seen) == {2}


def test_rows_without_targets_are_told() -> None:
    row = Encoded(np.arange(5), np.zeros(5, dtype=np.bool_), "t:1")
    with pytest.raises(BadInput, match="no row has a target"):
        try_precisions(from_one(tiny_model()), [row])


def test_fp16_is_made_as_the_library_would_load_it(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    ours = load_in(find_model(str(folder)), "fp16")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    wanted = dict(theirs.named_parameters())
    assert all(torch.equal(weight, wanted[name]) for name, weight in ours.named_parameters())
    buffers = dict(theirs.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in ours.named_buffers()), "rotary frequencies"
    assert ours.get_output_embeddings().weight is ours.get_input_embeddings().weight


@pytest.mark.model
def test_the_real_model() -> None:
    found = find_model("smollm2-135m-instruct")
    text = "The largest planet of the solar system is Jupiter, and the smallest is Mercury."
    ids = np.array(precisions.load_model(found, "bf16").tokenizer(text)["input_ids"])
    rows = [Encoded(ids, np.arange(len(ids)) >= 4, "t:1")]
    trials = by_name(try_precisions(lambda precision: load_in(found, precision), rows))
    assert trials["fp32"].loss is not None and 0.5 < trials["fp32"].loss < 3
    assert 0 < trials["fp16"].kl < trials["bf16"].kl < 0.01
    assert abs(trials["bf16"].loss_change) < 0.02 and trials["bf16"].agreement > 0.8
    assert 1000 < trials["fp16"].largest_activation < 65504 and trials["fp16"].not_finite == 0
    assert trials["bf16"].weights_bytes == pytest.approx(2 * 134_515_008, rel=1e-4)
