"""Several devices: what each holds and moves, and whether the network or the arithmetic sets the pace.

As Luthier trains (docs/scale.md): `ddp` holds the whole model everywhere and adds up the gradients once a step, in
float32 buckets, after the backward; `fsdp` holds shards, gathers each block for its forward and its backward, and adds
up the gradients of every pack while it computes. No network is measured here.

    terms, parallel = parallel_plan(terms, sizes, "fsdp", 8, arithmetic_s=4.3, network=network_of(device, 8))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from luthier.ground.errors import BadInput
from luthier.ground.plan_result import Parallel, TermNote, Terms
from luthier.ground.words import seconds, size
from luthier.machine.catalogue import Device

Strategy = Literal["ddp", "fsdp"]

BUCKET_BYTES = 64 * 2**20  # of the float32 sums of ddp: `luthier.training.parallel.group.BUCKET_ELEMENTS`
GATHERED_BLOCKS = 3  # whole blocks at a time with fsdp: the one that computes, the one that comes, the one that goes
LINK_EFFICIENCY = 0.78  # of a link's figure in one direction, by large messages: 350 of 450 GB/s (docs/scale.md)
DEVICES_PER_NODE = 8


@dataclass(frozen=True)
class ModelSizes:
    """Numbers of weights, which decide what is sharded and moved.

    Attributes:
        frozen: weights that are not trained.
        trained: weights that are.
        outside: weights that belong to no block: embedding, head, last norm.
        block: weights of the largest block, adapters included.
        weight_bytes: of one weight as it computes (2 in bf16).
        largest_trained: elements of the largest trained tensor; it has a bucket of its own if it is larger than one.
        whole_trained: whether the model's own weights are trained, so that shards are float32 masters of them.
    """

    frozen: int
    trained: int
    outside: int
    block: int
    weight_bytes: float = 2.0
    largest_trained: int = 0
    whole_trained: bool = False


@dataclass(frozen=True)
class Network:
    """What one device sends and receives at a time, in one direction."""

    bytes_s: float
    source: str


def parallel_plan(
    terms: Terms,
    sizes: ModelSizes,
    strategy: Strategy,
    devices: int,
    *,
    arithmetic_s: float,
    network: Network,
    packs: int = 1,
) -> tuple[Terms, Parallel]:
    """Return the terms of one device, and what it moves in a step.

    Args:
        terms: of a single process that computes this device's share of a step; for fsdp traced with the model's own
            modules, since those are what it runs.
        arithmetic_s: of this device's share of a step.
        packs: that this device computes in a step.

    Raises:
        BadInput: fewer than two devices.
    """
    if devices < 2:
        raise BadInput(f"{devices} device is not several", fix="give --devices 2 or more")
    if strategy == "ddp":
        own, moved = _ddp_terms(terms, sizes), ddp_moved_bytes(sizes, devices)
    else:
        own, moved = _fsdp_terms(terms, sizes, devices), packs * fsdp_moved_bytes(sizes, devices)
    network_s = moved / network.bytes_s
    parallel = Parallel(
        devices=devices,
        strategy=strategy,
        moved_bytes=round(moved),
        network_bytes_s=network.bytes_s,
        network_s=network_s,
        arithmetic_s=arithmetic_s,
        bound="network" if network_s > arithmetic_s else "arithmetic",
        sentence=_sentence(strategy, devices, moved, network_s, arithmetic_s, network),
    )
    return own, parallel


def step_s_of(parallel: Parallel) -> float:
    """Return the seconds of a step: with fsdp the longer of both, which overlap; with ddp both, one after the other."""
    if parallel.strategy == "fsdp":
        return max(parallel.network_s, parallel.arithmetic_s)
    return parallel.network_s + parallel.arithmetic_s


def network_of(device: Device, devices: int, devices_per_node: int = DEVICES_PER_NODE) -> Network:
    """Return what a device can send: by its link within one node, by its share of the node's network beyond.

    Raises:
        BadInput: the devices are in one node, and the catalogue knows no link of this one.
    """
    if devices > devices_per_node:
        share = device.node_network_bytes_s / devices_per_node  # 8 × 400 Gbit/s: 50 GB/s each
        return Network(share, f"{size(device.node_network_bytes_s)}/s of a node, shared by {devices_per_node}")
    if not device.link_bytes_s:
        raise BadInput(
            f"the catalogue knows no link between several {device.name}", fix="plan one device, or name another"
        )
    return Network(
        device.link_bytes_s * LINK_EFFICIENCY, f"{LINK_EFFICIENCY:.0%} of a link of {size(device.link_bytes_s)}/s"
    )


def ddp_moved_bytes(sizes: ModelSizes, devices: int) -> float:
    """Return what each device sends in a step: a ring all-reduce of the float32 gradients.

    2 (n − 1) / n × bytes: each part goes round once to be added up and once to be handed out (Patarasuk and Yuan 2009).
    """
    return 2 * (devices - 1) / devices * 4.0 * sizes.trained


def fsdp_moved_bytes(sizes: ModelSizes, devices: int) -> float:
    """Return what each device receives for a pack: (n − 1) / n of what it has not, each time that it is needed.

    The blocks' weights come twice, for the forward and the backward; what is outside of blocks stays from the one to
    the other; float32 gradients are handed on once.
    """
    weights = sizes.frozen + (sizes.trained if sizes.whole_trained else 0)
    gathered = (2 * (weights - sizes.outside) + sizes.outside) * sizes.weight_bytes
    adapters = 0 if sizes.whole_trained else 2 * 4 * sizes.trained
    return (devices - 1) / devices * (gathered + adapters + 4.0 * sizes.trained)


def parallel_notes(sizes: ModelSizes, strategy: Strategy, devices: int) -> list[TermNote]:
    """Return how the terms of one device come about, with their numbers."""
    if strategy == "ddp":
        return [TermNote(term="temporary", formula=f"+ {size(_bucket_bytes(sizes))} bucket", source="docs/scale.md")]
    weights = sizes.frozen + (sizes.trained if sizes.whole_trained else 0)
    outside, blocks = _gathered_bytes(sizes)
    return [
        TermNote(
            term="weights",
            formula=f"a shard of {weights / 1e9:.3g}e9 weights / {devices} + {size(outside)} outside of blocks, whole "
            f"+ {size(blocks)} of {GATHERED_BLOCKS} gathered blocks",
            source="docs/scale.md",
        ),
        TermNote(
            term="gradients",
            formula=f"{sizes.trained / 1e9:.3g}e9 × 4 / {devices} + one block's before they are handed on",
            source="docs/scale.md",
        ),
        TermNote(term="optimizer", formula=f"a shard: / {devices}", source="docs/scale.md"),
    ]


def _ddp_terms(terms: Terms, sizes: ModelSizes) -> Terms:
    """Add the bucket in which gradients are summed; it is there after the backward, so this errs to the safe side."""
    return terms.model_copy(update={"temporary_bytes": terms.temporary_bytes + _bucket_bytes(sizes)})


def _bucket_bytes(sizes: ModelSizes) -> int:
    return min(4 * sizes.trained, max(BUCKET_BYTES, 4 * sizes.largest_trained))


def _fsdp_terms(terms: Terms, sizes: ModelSizes, devices: int) -> Terms:
    """Divide weights, adapters, gradients and optimizer state; add what is whole while it is used.

    Trained weights lie as float32 shards, whatever they compute in; their moments and gradients as well.
    """
    outside, blocks = _gathered_bytes(sizes)
    shard = sizes.frozen * sizes.weight_bytes + (4 * sizes.trained if sizes.whole_trained else 0)
    masters = 4 * sizes.trained if sizes.whole_trained and sizes.weight_bytes < 4 else 0  # with the weights here
    return terms.model_copy(
        update={
            "weights_bytes": math.ceil(shard / devices + outside + blocks),
            "adapters_bytes": math.ceil(terms.adapters_bytes / devices),
            "gradients_bytes": math.ceil(4 * sizes.trained / devices + _block_gradients_bytes(sizes)),
            "optimizer_bytes": math.ceil(max(0, terms.optimizer_bytes - masters) / devices),
        }
    )


def _gathered_bytes(sizes: ModelSizes) -> tuple[int, int]:
    """Return the whole weights outside of blocks, and those of the blocks that are gathered at a time."""
    return round(sizes.outside * sizes.weight_bytes), round(GATHERED_BLOCKS * sizes.block * sizes.weight_bytes)


def _block_gradients_bytes(sizes: ModelSizes) -> float:
    """Return one block's whole gradients: as they were computed, and in float32 as they are handed on."""
    trained = sizes.block if sizes.whole_trained else 0
    return trained * (sizes.weight_bytes + 4)


def _sentence(
    strategy: Strategy, devices: int, moved: float, network_s: float, arithmetic_s: float, network: Network
) -> str:
    said = (
        f"{strategy} on {devices} devices: each moves {size(moved)} a step, {seconds(network_s)} at "
        f"{size(network.bytes_s)}/s ({network.source}), beside {seconds(arithmetic_s)} of arithmetic"
    )
    if strategy == "ddp":
        return said + "; the one follows the other."
    if network_s > arithmetic_s:
        return said + f"; the network sets the pace, until a pack has {network_s / arithmetic_s:.1f} times the tokens."
    return said + "; the exchange hides behind the arithmetic (overlap assumed)."
