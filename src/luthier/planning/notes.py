"""The formula and the source of each term of a plan, with the plan's own numbers.

notes_of(config, spec, predicted, workload, "lora", "cpu")[0].formula
"""

from __future__ import annotations

from transformers import PretrainedConfig

from luthier.ground.plan_result import TERMS, TermNote
from luthier.ground.spec import TrainSpec
from luthier.ground.words import exact_size
from luthier.planning.predict import PROCESS_BYTES, Prediction
from luthier.planning.predict_inference import PROCESS_BYTES as ANSWERING_BYTES
from luthier.planning.textbook import bits_of
from luthier.planning.workload import Workload

_TRACED = "traced: the real step on tensors without memory"
_STATE = {
    "adamw": "float32 moments, 8 bytes a trained weight (Kingma & Ba 2015)",
    "adamw8bit": "moments of 8 bits in blocks of 256 (Dettmers et al. 2022)",
    "adafactor": "rows and columns of the second moment (Shazeer & Stern 2018)",
}
_KEPT = {
    "none": "block input, q/k/v, attention output, middle, gate and up of every token and layer",
    "selective": "as without checkpointing, but gate and up are computed again",
    "full": "only each block's input; one block at a time is computed again (Chen et al. 2016)",
}


def notes_of(
    config: PretrainedConfig, spec: TrainSpec, predicted: Prediction, workload: Workload, method: str, device: str
) -> list[TermNote]:
    """Return a note for every term that has bytes.

    Args:
        device: as it is traced: cpu, or another, whose allocator is not modelled.
    """
    said = {
        "weights": _weights(spec, predicted, method),
        "adapters": (f"{predicted.trainable_parameters:,} trained weights in float32, and A as it computes", _TRACED),
        "gradients": ("of the trained weights that are complete at the peak", _TRACED),
        "optimizer": (
            _STATE.get(spec.optimizer, spec.optimizer) + (", and float32 masters" if _has_masters(spec) else ""),
            "ZeRO (Rajbhandari et al. 2020), section 3.1, for its parts; " + _TRACED,
        ),
        "activations": (_activations(spec, predicted, workload, method), _TRACED),
        "attention": ("scores of the blocks in work, and one float a head and token that is kept", "Dao 2022; traced"),
        "loss": ("logits of a chunk of rows, their gradient in the same memory", _TRACED),
        "kv_cache": (_cache(config, workload), "Pope et al. 2022"),
        "temporary": ("what operators hand on within a block", _TRACED),
        "overhead": _overhead(method, device),
    }
    sizes = predicted.terms
    return [
        TermNote(term=term, formula=said[term][0], source=said[term][1])
        for term in TERMS
        if getattr(sizes, f"{term}_bytes")
    ]


def _overhead(method: str, device: str) -> tuple[str, str]:
    if device != "cpu":
        return "the device's runtime (a guess), and blocks rounded up to 512 bytes", "the device catalogue"
    fitted = ANSWERING_BYTES if method == "inference" else PROCESS_BYTES
    return (
        f"the process before loading, {exact_size(fitted)} for libraries and threads at work (fitted), "
        "and what the allocator holds beside what is used (replayed)",
        "benchmarks/plan_accuracy.py; glibc's malloc",
    )


def _weights(spec: TrainSpec, predicted: Prediction, method: str) -> tuple[str, str]:
    held = str(spec.base or spec.precision)
    each = f"{bits_of(held) / 8:g} bytes"
    beside = " in the blocks' linear layers with their scales, the rest wider" if held in ("int8", "nf4") else ""
    columns = "" if method in ("inference", "full") else ", and the columns of B that lie beside them"
    return f"{predicted.parameters:,} weights x {each}{beside}{columns}", _TRACED


def _activations(spec: TrainSpec, predicted: Prediction, workload: Workload, method: str) -> str:
    if method == "inference":
        return "of one layer at a time, for all tokens of the prompts"
    tokens = max((len(pack.ids_T) for pack in workload.heaviest), default=0)
    each = predicted.terms.activations_bytes / max(1, tokens)
    return f"{tokens:,} tokens of the largest pack x {each / 1e3:,.1f} kB: {_KEPT[spec.checkpointing]}"


def _cache(config: PretrainedConfig, workload: Workload) -> str:
    layers = getattr(config, "num_hidden_layers", "?")
    kv = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", "?")
    return f"2 x {layers} layers x {kv} heads x their width x {workload.longest:,} tokens x {workload.rows} rows"


def _has_masters(spec: TrainSpec) -> bool:
    return spec.adapter.kind == "full" and spec.adapter.masters == "fp32" and spec.precision == "bf16"
