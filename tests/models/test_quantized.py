"""Quantised weights: both formats against NumPy, error bounds, kernels to the bit, layers, and loading without a whole.

The references quantise element by element as the formats are described, in NumPy and with a float8 of their own.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.stats import norm
from tiny_models import tiny_folder, tiny_model
from torch import Tensor, nn

from luthier.ground.errors import BadInput
from luthier.models import load, quantized_loading
from luthier.models.find import find_model
from luthier.models.kernels import build, dequantize
from luthier.models.load import load_model
from luthier.models.quantized import (
    Int8Weight,
    Nf4Weight,
    QuantizedLinear,
    QuantizedWeight,
    linear_paths,
    parameter_count,
    quantize_model,
    quantized_bytes,
)

KINDS = pytest.mark.parametrize("kind", ["int8", "nf4"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
needs_native = pytest.mark.skipif(build.library() is None, reason="no compiler here: only the plain kernels exist")
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 200))


def weight_of(rows: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal weights; one row is far larger, one is zero where there are several."""
    made = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 0.05
    if rows > 2:
        made[1] *= 30
        made[2] = 0
    return made.to(dtype)


# -- references ------------------------------------------------------------------------------------------------------


def int8_reference(weight_OI: np.ndarray) -> np.ndarray:
    out = np.zeros_like(weight_OI)
    for row, values in enumerate(weight_OI):
        scale = np.float32(np.abs(values).max()) / np.float32(127)
        if scale:
            out[row] = np.rint(values / scale).clip(-127, 127).astype(np.float32) * scale
    return out


def float8_values() -> np.ndarray:
    """The numbers of E4M3 (4 exponent bits, bias 7; 3 of the mantissa; no infinity), by code up to 126."""
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    normal = 2.0 ** (exponent - 7.0) * (1 + mantissa / 8)
    return np.where(exponent == 0, 2.0**-6 * mantissa / 8, normal).astype(np.float32)


def nearest_float8(value: np.float32) -> np.float32:
    values = float8_values()
    apart = np.abs(values.astype(np.float64) - abs(float(value)))
    nearest = np.flatnonzero(apart == apart.min())
    code = nearest[nearest % 2 == 0][0] if len(nearest) > 1 else nearest[0]  # a tie goes to the even code
    return np.float32(np.copysign(values[code], value))


def nf4_levels() -> np.ndarray:
    """The paper's construction: quantiles of the normal distribution, eight above zero, zero, seven below."""
    offset = 0.9677083
    above = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    below = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([above, [0.0], below]))
    return levels / levels.max()


def nf4_reference(weight_OI: np.ndarray, mean: np.float32) -> np.ndarray:
    levels = dequantize.NF4_LEVELS.numpy()
    blocks = [row[first : first + 64] for row in weight_OI for first in range(0, weight_OI.shape[1], 64)]
    apart = np.array([np.abs(block).max() for block in blocks], np.float32) - mean
    scales = []
    for first in range(0, len(apart), 256):
        group = apart[first : first + 256]
        outer = torch.tensor(np.abs(group).max() / np.float32(448)).bfloat16().float().numpy()
        scales += [mean + (nearest_float8(value / outer) if outer else np.float32(0)) * outer for value in group]
    out = []
    for block, scale in zip(blocks, scales, strict=True):
        numbers = levels * scale
        nearest = np.abs(block[:, None].astype(np.float64) - numbers[None].astype(np.float64)).argmin(1)
        out.append(numbers[nearest])
    return np.concatenate(out).reshape(weight_OI.shape)


# -- formats ---------------------------------------------------------------------------------------------------------


def test_the_levels_are_the_papers() -> None:
    np.testing.assert_allclose(dequantize.NF4_LEVELS.numpy(), nf4_levels(), atol=2e-6)
    np.testing.assert_array_equal(dequantize.FLOAT8[:127].numpy(), float8_values())


@pytest.mark.parametrize("shape", [(1, 1), (4, 64), (5, 130), (300, 70)])
def test_both_formats_are_their_references(shape: tuple[int, int]) -> None:
    weight_OI = weight_of(*shape)
    found = QuantizedWeight.of(weight_OI, "int8").dequantized().numpy()
    np.testing.assert_array_equal(found, int8_reference(weight_OI.numpy()))
    nf4 = QuantizedWeight.of(weight_OI, "nf4")
    assert isinstance(nf4, Nf4Weight)
    largest = [block.abs().max() for row in weight_OI for block in row.split(64)]
    assert float(nf4.mean) == pytest.approx(float(torch.stack(largest).mean()), rel=1e-6)
    wanted = nf4_reference(weight_OI.numpy(), nf4.mean.numpy())
    found = nf4.dequantized().numpy()
    differs = found != wanted  # where a weight lies halfway between two levels to the last bit, either is nearest
    apart = np.abs(np.abs(found - weight_OI.numpy()) - np.abs(wanted - weight_OI.numpy()))
    assert (apart[differs] <= 1e-6 * np.abs(weight_OI.numpy()).max()).all() and differs.mean() < 0.01


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_no_weight_is_farther_than_half_a_step(shape: tuple[int, int], seed: int) -> None:
    weight_OI = weight_of(*shape, seed)
    int8 = QuantizedWeight.of(weight_OI, "int8")
    assert isinstance(int8, Int8Weight)
    apart_OI = (int8.dequantized() - weight_OI).abs()
    assert bool((apart_OI <= int8.scales[:, None] * 0.50001).all())
    assert int(int8.codes.abs().amax()) <= 127
    nf4 = QuantizedWeight.of(weight_OI, "nf4")
    assert isinstance(nf4, Nf4Weight)
    scales_OI = dequantize.nf4_scales(nf4.scale_codes, nf4.outer, nf4.mean).repeat_interleave(64, 1)[:, : shape[1]]
    numbers_OIL = dequantize.NF4_LEVELS * scales_OI[..., None]
    nearest_OI = (numbers_OIL - weight_OI[..., None]).abs().amin(-1)
    found_OI = (nf4.dequantized() - weight_OI).abs()
    assert bool((found_OI <= nearest_OI + 1e-6 * scales_OI.abs()).all())


def test_normal_weights_lose_what_the_formats_are_known_to_lose() -> None:
    """Integers: the largest of 1,024 is 3.45, and a step's error its width / sqrt(12). NF4 in blocks of 64: 9 %."""
    weight_OI = torch.randn(256, 1024, generator=torch.Generator().manual_seed(0))
    for kind, wanted in (("int8", 3.45 / 127 / 12**0.5), ("nf4", 0.092)):
        apart = QuantizedWeight.of(weight_OI, kind).dequantized() - weight_OI  # type: ignore[arg-type]
        assert float(apart.norm() / weight_OI.norm()) == pytest.approx(wanted, rel=0.05), kind


@KINDS
@pytest.mark.parametrize("shape", [(1, 1), (3, 65), (64, 128), (7, 4096)])
def test_bytes_are_those_of_the_buffers(kind: str, shape: tuple[int, int]) -> None:
    made = QuantizedWeight.of(torch.ones(shape), kind)  # type: ignore[arg-type]
    assert quantized_bytes(shape, kind) == sum(buffer.nbytes for buffer in made.buffers())  # type: ignore[arg-type]


def test_nf4_takes_4_127_bits_a_weight_and_int8_eight() -> None:
    """4 bits, 8 for 64 weights and 32 for 64 * 256: section 3 of the paper says 0.127 bits beside the 4."""
    weights = 4096 * 4096
    assert quantized_bytes((4096, 4096), "nf4") * 8 / weights == pytest.approx(4.127, abs=0.001)
    assert quantized_bytes((4096, 4096), "int8") == weights + 4 * 4096


@KINDS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_found(kind: str, bad: float) -> None:
    weight_OI = weight_of(4, 100)
    assert QuantizedWeight.of(weight_OI, kind).is_finite()  # type: ignore[arg-type]
    weight_OI[3, 70] = bad
    assert not QuantizedWeight.of(weight_OI, kind).is_finite()  # type: ignore[arg-type]


# -- kernels ---------------------------------------------------------------------------------------------------------


@needs_native
@KINDS
@DTYPES
@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, extra=st.integers(0, 9), seed=st.integers(0, 99))
def test_native_and_plain_give_the_same_bits(
    kind: str, dtype: torch.dtype, shape: tuple[int, int], extra: int, seed: int
) -> None:
    made = QuantizedWeight.of(weight_of(*shape, seed), kind)  # type: ignore[arg-type]
    outs = []
    for functions in (dequantize._functions, lambda: None):
        whole = torch.full((shape[0], shape[1] + extra), 7.0, dtype=dtype)
        with mock.patch.object(dequantize, "_functions", functions):
            made.write(whole[:, : shape[1]])
        assert bool((whole[:, shape[1] :] == 7.0).all()), "memory beside the rows was written to"
        outs.append(whole)
    assert torch.equal(outs[0], outs[1])


@needs_native
@KINDS
def test_threads_and_tiles_change_no_bit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight_OI, before = weight_of(67, 190), torch.get_num_threads()
    found = []
    try:
        for threads, tile in ((1, 1 << 22), (2, 400)):
            torch.set_num_threads(threads)
            monkeypatch.setattr("luthier.models.quantized._TILE", tile)
            found.append(QuantizedWeight.of(weight_OI, kind))  # type: ignore[arg-type]
            found[-1].numbers = found[-1].dequantized(torch.bfloat16)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].numbers, found[1].numbers)
    assert all(torch.equal(one, two) for one, two in zip(found[0].buffers(), found[1].buffers(), strict=True))


@KINDS
def test_the_plain_way_takes_tiles(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = QuantizedWeight.of(weight_of(9, 70), kind)  # type: ignore[arg-type]
    monkeypatch.setattr(dequantize, "_functions", lambda: None)
    whole = made.dequantized()
    monkeypatch.setattr(dequantize, "_PLAIN_TILE", 150)
    assert torch.equal(made.dequantized(), whole)


# -- layers ----------------------------------------------------------------------------------------------------------


@KINDS
@DTYPES
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 70), (2, 3, 70)])
def test_a_layer_is_the_linear_layer_of_its_numbers(
    kind: str, dtype: torch.dtype, bias: bool, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(70, 9, bias=bias).to(dtype)
    layer = QuantizedLinear.of(linear, kind)  # type: ignore[arg-type]
    same = nn.Linear(70, 9, bias=bias).to(dtype)
    same.weight.data = layer.quantized.dequantized()
    same.bias = linear.bias
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    inputs = [x, linear.bias] if bias else [x]
    for found, wanted in ((layer(x), same(x)),):
        assert torch.equal(found, wanted)
        gradients = [torch.autograd.grad(y.float().square().sum(), inputs) for y in (found, wanted)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)


@KINDS
def test_the_numbers_are_not_kept_for_the_backward(kind: str) -> None:
    layer = QuantizedLinear.of(nn.Linear(64, 48), kind)  # type: ignore[arg-type]
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        layer(torch.randn(3, 64, requires_grad=True)).sum().backward()
    assert max(kept, default=0) < 64 * 48


@KINDS
def test_a_cast_changes_what_is_made_and_not_the_scales(kind: str) -> None:
    layer = QuantizedLinear.of(nn.Linear(70, 9), kind)  # type: ignore[arg-type]
    before = {name: buffer.clone() for name, buffer in layer.quantized.named_buffers()}
    layer.to(torch.bfloat16)
    assert layer.quantized.dtype == layer.quantized.dequantized().dtype == layer.bias.dtype == torch.bfloat16
    for name, buffer in layer.quantized.named_buffers():
        assert buffer.dtype == before[name].dtype and torch.equal(buffer, before[name])
    layer.to("meta")
    assert layer.quantized.device.type == "meta" and layer.quantized.dequantized().is_meta


# -- models ----------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3", "gpt_neox"])
def test_the_linear_layers_of_the_blocks_are_replaced_and_nothing_else(kind: str, family: str) -> None:
    model, untouched = tiny_model(family), tiny_model(family)
    paths, count = linear_paths(model), parameter_count(model)
    originals = [weakref.ref(model.get_submodule(path).weight) for path in paths]
    quantize_model(model, kind)  # type: ignore[arg-type]
    assert all(original() is None for original in originals), "a weight is held beside its codes"
    assert linear_paths(model) == paths and parameter_count(model) == count
    assert all(type(model.get_submodule(path)) is QuantizedLinear for path in paths)
    before = dict(untouched.named_parameters())
    kept = dict(model.named_parameters())
    assert before.keys() - kept.keys() == {f"{path}.weight" for path in paths}
    assert all(torch.equal(weight, before[name]) for name, weight in kept.items())
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        wanted, found = untouched(ids).logits, model(ids).logits
    relative = float((found - wanted).norm() / wanted.norm())
    assert 0 < relative < (0.05 if kind == "int8" else 0.5)


@KINDS
def test_a_model_without_memory_gets_shapes_and_devices(kind: str) -> None:
    with torch.device("meta"):
        model = tiny_model()
    quantize_model(model, kind)  # type: ignore[arg-type]
    found = [part for part in model.modules() if isinstance(part, QuantizedWeight)]
    wanted = tiny_model()
    quantize_model(wanted, kind)  # type: ignore[arg-type]
    assert {name: (b.shape, b.dtype) for name, b in model.named_buffers() if "quantized" in name} == {
        name: (b.shape, b.dtype) for name, b in wanted.named_buffers() if "quantized" in name
    }
    assert len(found) == 14 and all(buffer.is_meta for part in found for buffer in part.buffers())
    assert found[0].dequantized().shape == found[0].shape


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(BadInput, match=r"no nn.Linear layers in its blocks.*set train.base"):
        quantize_model(tiny_model("gpt2"), "nf4")


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3", "gemma3_text", "granite", "gpt_neox"])
@KINDS
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_rounding_while_reading_gives_what_rounding_afterwards_gives(
    family: str, kind: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_refuse_small_embedding", lambda *_: None)  # some families bring another tokenizer
    found = find_model(str(tiny_folder(tmp_path / "model", family)), folder=tmp_path)
    read = load_model(found, precision, kind).model  # type: ignore[arg-type]
    whole = load_model(found, precision).model  # type: ignore[arg-type]
    quantize_model(whole, kind)  # type: ignore[arg-type]
    for ours, theirs in (
        (dict(read.named_parameters()), dict(whole.named_parameters())),
        (dict(read.named_buffers()), dict(whole.named_buffers())),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    dtypes = [{part.dtype for part in model.modules() if isinstance(part, QuantizedWeight)} for model in (read, whole)]
    assert dtypes[0] == dtypes[1] == {read.dtype}
    assert read.config.to_dict() == whole.config.to_dict(), "no mark is left"
    assert not getattr(read, "is_quantized", False)


def test_while_reading_no_other_weight_of_a_block_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_model(str(tiny_folder(tmp_path / "model")), folder=tmp_path)
    models: list[nn.Module] = []
    whole: list[int] = []
    real_before = quantized_loading._Quantizer._process_model_before_weight_loading

    def before(self: object, model: nn.Module, **more: object) -> nn.Module:
        models.append(model)
        return real_before(self, model, **more)

    real_of = QuantizedWeight.of

    def of(weight_OI: Tensor, kind: str, dtype: torch.dtype) -> QuantizedWeight:
        linears = [module for module in models[0].modules() if type(module) is nn.Linear]
        whole.append(sum(linear.weight.numel() for linear in linears if not linear.weight.is_meta))
        return real_of(weight_OI, kind, dtype)  # type: ignore[arg-type]

    monkeypatch.setattr(quantized_loading._Quantizer, "_process_model_before_weight_loading", before)
    monkeypatch.setattr(QuantizedWeight, "of", of)
    load_model(found, "bf16", "nf4")
    assert len(whole) == 14 and max(whole) <= models[0].get_input_embeddings().weight.numel(), "the tied head at most"


@KINDS
def test_a_loaded_model_says_what_it_is(kind: str, tmp_path: Path) -> None:
    found = find_model(str(tiny_folder(tmp_path / "model")), folder=tmp_path)
    plain, loaded = load_model(found, "bf16"), load_model(found, "bf16", kind)  # type: ignore[arg-type]
    assert loaded.provenance.loaded_as == f"{kind} with bfloat16 beside it"
    assert loaded.provenance.sentence.endswith(f"loaded as {kind} with bfloat16 beside it")
    assert loaded.provenance.parameters == plain.provenance.parameters
    assert loaded.provenance.sha256 == plain.provenance.sha256
    assert not any(weight.requires_grad for weight in loaded.model.parameters())


@KINDS
def test_a_broken_or_missing_weight_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 5] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN"):
        load_model(find_model(str(folder), folder=tmp_path), "bf16", kind)  # type: ignore[arg-type]
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"1 weights do not fit the config \(missing: model\.layers\.1\.mlp\.up_proj"):
        load_model(find_model(str(folder), folder=tmp_path), "bf16", kind)  # type: ignore[arg-type]
    weights[name] = torch.ones(3, 3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"cannot be read|do not fit"):
        load_model(find_model(str(folder), folder=tmp_path), "bf16", kind)  # type: ignore[arg-type]
