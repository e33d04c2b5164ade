"""Which stage of a training step, which term of the plan, and which place of the step a block of memory belongs to.

All is read off the trace: where in Luthier's own code a block was made, at which stage, and whether it was kept.

    stage_of(block), term_of(block, trace.marks["forward_end"]), places_of(trace)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from luthier.planning.trace import Block, MemoryTrace

_SENTENCES = {
    "forward": "end of the forward",
    "loss": "loss, with all activations there",
    "update": "update of the weights",
    "prompt": "reading the prompts",
    "decode": "writing the answers",
}
_LOSS = ("objectives.cross_entropy", "models.packed.uncapped", "models.packed.__call__")
_ATTENTION = ("models.attention", "models.seq2seq_attention", "models.kernels.varlen", "models.segments")


def stage_of(block: Block) -> str:
    """Return the stage at which a block was made: forward, loss, backward or update."""
    if block.place.startswith("training.optimizers"):
        return "update"
    if is_of_loss(block):
        return "loss"
    return block.stage


def is_of_loss(block: Block) -> bool:
    """Say whether a block is of logits or of what the loss works with."""
    return block.place.startswith(_LOSS) or block.place.endswith(".softmax_loss")


def term_of(block: Block, forward_ends: Sequence[int]) -> str:
    """Return the term that a block counts in.

    Args:
        forward_ends: the events at which a forward had ended, rising.
    """
    if block.label:
        return block.label
    if block.place.startswith("training.engine.projection.__init__"):
        return "adapters"  # A in the arithmetic's precision; the joined weights have their label
    if is_of_loss(block):
        return "loss"
    if block.place.startswith(_ATTENTION):
        return "attention"
    if block.stage == "forward":
        after = bisect_right(forward_ends, block.made)
        if after < len(forward_ends) and (block.freed is None or block.freed >= forward_ends[after]):
            return "activations"
    return "temporary"


def places_of(trace: MemoryTrace) -> dict[int, tuple[int, str]]:
    """Return for each event of the steps that makes a block the number of forwards before it, and the place in words.

    A backward is told by thirds: the upper layers come first.
    """
    ends = trace.marks["forward_end"]
    groups: dict[tuple[int, str], list[int]] = {}
    for event in range(trace.marks["step"][0], trace.marks["step_end"][-1]):
        number = trace.events[event]
        if number > 0:
            key = (bisect_right(ends, event), stage_of(trace.blocks[number - 1]))
            groups.setdefault(key, []).append(event)
    places = {}
    for (forwards, stage), events in groups.items():
        for rank, event in enumerate(events):
            places[event] = forwards, words_of(stage, rank / len(events))
    return places


def words_of(stage: str, part: float) -> str:
    """Say where in the step something is: at this part, from 0 to 1, of a stage."""
    layers = "upper" if part < 1 / 3 else "middle" if part < 2 / 3 else "lower"
    return f"backward, in the {layers} layers" if stage == "backward" else _SENTENCES.get(stage, stage)
