"""Predict the memory and the work of answering, from a config alone, by tracing the real sessions without memory.

A causal model reads prompts and writes tokens as `luthier.generation` does: in passes of bounded work, with the keys
and values of every row in slots that grow, or, where its attention does not allow that, with transformers' own cache.
Not every pass and token is traced: the first, the last and some between for the prompt, and those at which the cache
grows and the last for the answer. An encoder-decoder reads once and writes with transformers' cache of both
attentions. Seconds and prices are not here; closed forms stand in `luthier.planning.inference`.

    predict_inference(config, precision="bf16", base=None, seq=2048, batch=8, baseline_bytes=500_000_000).peak_bytes
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache

from luthier.generation.sessions import PlainSession, SlotSession
from luthier.generation.slots import NotSharable, can_share
from luthier.models.planned import hearing, planned_for
from luthier.models.quantized import parameter_count, quantize_model
from luthier.planning.fused import fused_attention
from luthier.planning.predict import Prediction
from luthier.planning.replay import replayed
from luthier.planning.stages import words_of
from luthier.planning.subject import is_encoder_decoder, meta_model, plannable
from luthier.planning.trace import Block, MemoryTrace
from luthier.planning.work import Work

# Beside tensors and imports, once a model answers on a CPU: the tokenizer, kernels and scratch. Fitted on two measured
# runs of SmolLM2-135M, whose predictions are then 0.3 % under and 8 % (29 MB) over the truth.
PROCESS_BYTES = 80_000_000
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class InferencePrediction(Prediction):
    """What a process needs that answers; `work` is that of the last token of every row.

    Attributes:
        prompt_work: of reading the prompts.
        cache_bytes: keys and values at the end.
    """

    prompt_work: Work = field(default_factory=Work)
    cache_bytes: int = 0


def predict_inference(
    config: PretrainedConfig,
    *,
    precision: str,
    base: str | None,
    seq: int,
    batch: int,
    baseline_bytes: int,
    device: str = "cpu",
    kv_bytes: int | None = None,
    new_tokens: int = 1,
) -> InferencePrediction:
    """Return what answering needs.

    Args:
        precision: of the arithmetic: bf16, fp16 or fp32.
        base: of the weights, if not that: bf16, fp32, int8 or nf4.
        seq: tokens of each row, prompt and answer together; of an encoder-decoder, those that the encoder reads.
        batch: rows that are answered at once.
        baseline_bytes: of the process before the model is loaded (on a GPU: of its runtime).
        device: cpu, or cuda, where the allocator is not modelled.
        kv_bytes: of one number in the cache (default: as Luthier keeps it: 4 on a CPU, otherwise as `precision`).
        new_tokens: of these how many are written rather than read; of an encoder-decoder, the answer's length.
    """
    with (
        plannable(config),
        planned_for(device),
        torch.no_grad(),
        fused_attention(),
        MemoryTrace() as trace,
        hearing(trace.hear),
    ):
        model = meta_model(config, _DTYPES[base if base in _DTYPES else precision])
        if base in ("int8", "nf4"):
            quantize_model(model, "int8" if base == "int8" else "nf4")
        trace.adopt([*model.parameters(), *model.buffers()], "weights")
        trace.mark("trim")
        run = _answer_with_encoder if is_encoder_decoder(config) else _answer
        works = run(trace, model, seq, batch, max(1, min(new_tokens, seq - 1)))
        trace.mark("step_end")
    share = _resized(trace, works, kv_bytes)
    return _told(trace, model, works, share, baseline_bytes, device)


@dataclass
class _Works:
    """What reading the prompts and writing the last token took, with what they were done, and what was cached."""

    prompt: Work
    token: Work
    engine: str
    cached: list[Tensor]


# -- causal models -------------------------------------------------------------------------------------------------


def _answer(trace: MemoryTrace, model: PreTrainedModel, seq: int, batch: int, new_tokens: int) -> _Works:
    prompts = [[0] * (seq - new_tokens)] * batch
    if can_share(model):
        try:
            _begin(trace)
            return _answer_in_slots(trace, SlotSession(model, None, prompts, new_tokens), seq)
        except NotSharable:  # as the generator finds out
            pass
    _begin(trace)
    return _answer_plainly(trace, PlainSession(model, None, prompts), seq)


def _begin(trace: MemoryTrace) -> None:
    trace.stage = "prompt"
    trace.marks["step"] = [len(trace.events)]
    trace.marks["pass"] = []


def _answer_in_slots(trace: MemoryTrace, session: SlotSession, seq: int) -> _Works:
    sizes = session.passes()
    starts = [0, *np.cumsum(sizes).tolist()]
    last = len(sizes) - 1
    works = {}
    for number in sorted({0, max(0, last - 1), last}):
        _jump(session, starts[number])
        works[number] = _work_of(trace, session, partial(session.read, sizes[number]))
    trace.stage = "decode"
    _step_in_slots(trace, session, starts[-1])
    while (room := session.cache.slots[0].room) < seq:
        _step_in_slots(trace, session, room)
    token = _step_in_slots(trace, session, seq - 1)
    return _Works(_summed(sizes, works), token, "slots", list(_kept(session.cache)))


def _step_in_slots(trace: MemoryTrace, session: SlotSession, length: int) -> Work:
    """Write the token after `length` others."""
    _jump(session, length)
    rows = len(session.ids_BT)
    return _work_of(trace, session, lambda: session.step(torch.zeros(rows, dtype=torch.int64)))


def _jump(session: SlotSession, length: int) -> None:
    """Go on as if `length` tokens of each row had been read."""
    session.length = length
    for slot in session.cache.slots:
        slot.length = length


def _summed(sizes: list[int], works: dict[int, Work]) -> Work:
    """Return the work of all passes, of which some were traced.

    A token's operations grow evenly with the tokens before it, and so does what a pass moves.
    """
    places, every = sorted(works), np.arange(len(sizes))

    def summed(name: str, per: list[int]) -> float:
        traced = [getattr(works[place], name) / per[place] for place in places]
        return float((np.interp(every, places, traced) * per).sum())

    once = [1] * len(sizes)
    return Work(
        flops=summed("flops", sizes),
        product_bytes=summed("product_bytes", once),
        other_bytes=summed("other_bytes", once),
        other_flops=summed("other_flops", sizes),
        calls=round(summed("calls", once)),
    )


def _answer_plainly(trace: MemoryTrace, session: PlainSession, seq: int) -> _Works:
    prompt = _work_of(trace, session, session.prefill)
    trace.stage = "decode"
    rows, read = session.ids_BT.shape
    if read < seq - 1:
        _stretch(session.cache, seq - 1)
        trace.adopt(_kept(session.cache), "kv_cache")
        session.mask_BK = session.mask_BK.new_ones(rows, seq - 1)
    token = _work_of(trace, session, lambda: session.step(torch.zeros(rows, dtype=torch.int64)))
    return _Works(prompt, token, "transformers' cache", list(_kept(session.cache)))


def _work_of(trace: MemoryTrace, session: SlotSession | PlainSession, call: Callable[[], Tensor]) -> Work:
    """Run `call`, which returns scores, and say what is cache and what scores."""
    trace.mark("pass")
    before = trace.total_work()
    scores_BV = call()
    trace.adopt(_kept(session.cache), "kv_cache")
    trace.adopt([scores_BV], "loss")
    return trace.total_work() - before


def _kept(cache: Cache) -> Iterator[Tensor]:
    """Yield all that a cache holds: keys and values, and states of layers without attention."""
    for layer in cache.layers:
        yield from (value for value in vars(layer).values() if isinstance(value, Tensor))


def _stretch(cache: Cache, length: int) -> None:
    """Let the keys and values be those of `length` tokens, or of as many as a window keeps."""
    for layer in cache.layers:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None:
            continue
        kept = min(length, layer.sliding_window - 1) if layer.is_sliding else length
        layer.keys = keys.new_empty(*keys.shape[:2], kept, keys.shape[-1])
        layer.values = values.new_empty(*values.shape[:2], kept, values.shape[-1])
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length = length


# -- encoder-decoders ----------------------------------------------------------------------------------------------


def _answer_with_encoder(trace: MemoryTrace, model: PreTrainedModel, seq: int, batch: int, new_tokens: int) -> _Works:
    _begin(trace)
    ids_BS = torch.zeros(batch, seq, dtype=torch.int64)
    mask_BS = torch.ones_like(ids_BS)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    encoded = model.get_encoder()(input_ids=ids_BS, attention_mask=mask_BS)

    def cached() -> list[Tensor]:
        return [*_kept(cache.self_attention_cache), *_kept(cache.cross_attention_cache)]

    def step() -> Work:
        trace.mark("pass")
        before = trace.total_work()
        scores_BV = model(
            encoder_outputs=encoded,
            attention_mask=mask_BS,
            decoder_input_ids=ids_BS[:, :1],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        trace.adopt(cached(), "kv_cache")
        trace.adopt([scores_BV], "loss")
        return trace.total_work() - before

    step()  # the first token also fills the cache of the prompt's keys and values
    prompt = trace.total_work()
    trace.stage = "decode"
    if new_tokens > 1:
        _stretch(cache.self_attention_cache, new_tokens - 1)
        trace.adopt(cached(), "kv_cache")
    return _Works(prompt, step(), "transformers' own forward", cached())


# -- what is told --------------------------------------------------------------------------------------------------


def _resized(trace: MemoryTrace, works: _Works, kv_bytes: int | None) -> float:
    """Let the cache's numbers have another size than they were traced with; return the ratio."""
    share = kv_bytes / works.cached[0].itemsize if kv_bytes and works.cached else 1.0
    for block in trace.blocks:
        if block.label == "kv_cache":
            block.bytes = round(block.bytes * share)
    return share


def _told(
    trace: MemoryTrace, model: PreTrainedModel, works: _Works, share: float, baseline_bytes: int, device: str
) -> InferencePrediction:
    passes = trace.marks["pass"]
    places = {
        event: (bisect_right(passes, event), words_of(trace.blocks[number - 1].stage, 0.0))
        for event, number in _made_in_steps(trace)
    }
    replay = replayed(trace, device, lambda block: block.stage, _term_of, places)
    beside = baseline_bytes + (PROCESS_BYTES if device == "cpu" else 0)
    return InferencePrediction(
        terms=replay.terms(beside),
        moments=replay.moments(beside),
        peak_at=replay.peak_at,
        work=works.token,
        live_bytes=trace.live_peak_bytes(trace.marks["step"][0], trace.marks["step_end"][-1]),
        parameters=parameter_count(model),
        trainable_parameters=0,
        engine=works.engine,
        waste_bytes=replay.waste_bytes,
        profile=replay.profile,
        prompt_work=works.prompt,
        cache_bytes=round(share * sum({id(part): part.nbytes for part in works.cached}.values())),
    )


def _made_in_steps(trace: MemoryTrace) -> Iterator[tuple[int, int]]:
    """Yield the events of the steps that make a block, with its number."""
    begin, end = trace.marks["step"][0], trace.marks["step_end"][-1]
    return ((event, trace.events[event]) for event in range(begin, end) if trace.events[event] > 0)


def _term_of(block: Block) -> str:
    if block.label:
        return block.label
    if block.place.startswith(("generation.slots", "models.attention", "models.packed", "models.segments")):
        return "attention"
    if block.place.startswith(("models.quantized", "models.kernels.dequantize")):
        return "temporary"  # a weight as numbers
    return "activations"
