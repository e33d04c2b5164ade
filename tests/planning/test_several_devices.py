"""Several devices: the tables of docs/scale.md, what is moved, and who sets the pace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.ground.errors import BadInput
from luthier.ground.plan_result import Terms
from luthier.machine.catalogue import find_device
from luthier.planning.parallel import (
    ModelSizes,
    Network,
    ddp_moved_bytes,
    fsdp_moved_bytes,
    network_of,
    parallel_notes,
    parallel_plan,
    step_s_of,
)
from luthier.training.parallel.group import BUCKET_ELEMENTS

LORA_70B = ModelSizes(frozen=70_600_000_000, trained=207_000_000, outside=2_100_000_000, block=856_000_000)
FULL_70B = ModelSizes(0, 70_600_000_000, 2_100_000_000, 856_000_000, whole_trained=True)
FULL_8B = ModelSizes(0, 8_030_000_000, 1_050_000_000, 218_000_000, whole_trained=True)
NVLINK = Network(350e9, "an example")
NODES = Network(50e9, "an example")


def _terms(trained: int, adapters: int, activations: float, weights: float) -> Terms:
    """One process: activations of 4,096 tokens with full checkpointing, 1.5 GB for the block computed again, CUDA."""
    return Terms(
        weights_bytes=round(weights),
        adapters_bytes=adapters,
        gradients_bytes=4 * trained,
        optimizer_bytes=8 * trained,
        activations_bytes=round(activations),
        temporary_bytes=1_500_000_000,
        overhead_bytes=4_000_000_000,
    )


def test_a_70b_lora_on_eight_h100_needs_about_38_gb_each() -> None:
    """docs/scale.md: 17.6 + 3.7 + 5.1 + 0.4 + 5.4 + 1 to 2 + 4."""
    one = _terms(207_000_000, 4 * 207_000_000, 16_384 * 80 * 4096, 141.2e9)
    terms, parallel = parallel_plan(one, LORA_70B, "fsdp", 8, arithmetic_s=4.3, network=NVLINK)
    assert terms.weights_bytes == pytest.approx(17.65e9 + 4.2e9 + 5.14e9, rel=0.001)
    state = terms.adapters_bytes + terms.gradients_bytes + terms.optimizer_bytes
    assert state == pytest.approx(16 * 207e6 / 8)
    assert terms.total == pytest.approx(38e9, rel=0.02)
    assert parallel.moved_bytes == pytest.approx(247e9, rel=0.02)
    assert parallel.network_s == pytest.approx(0.7, abs=0.02)
    assert parallel.bound == "arithmetic"
    assert step_s_of(parallel) == 4.3
    assert parallel.sentence == (
        "fsdp on 8 devices: each moves 245.6 GB a step, 0.7 s at 350.0 GB/s (an example), beside 4.3 s of arithmetic; "
        "the exchange hides behind the arithmetic (overlap assumed)."
    )


@pytest.mark.parametrize(
    ("sizes", "devices", "shard", "rest", "fits"),
    [(FULL_8B, 8, 16e9, 10e9, True), (FULL_70B, 16, 71e9, 18e9, False), (FULL_70B, 32, 35e9, 18e9, True)],
)
def test_full_finetunes_over_nodes(sizes: ModelSizes, devices: int, shard: float, rest: float, fits: bool) -> None:
    """docs/scale.md leaves out a block's whole gradients on their way, and counts fewer gathered bytes at 70B."""
    width, blocks = (8_192, 80) if sizes is FULL_70B else (4_096, 32)
    one = _terms(sizes.trained, 0, 2 * width * blocks * 4096, 2 * sizes.trained)
    one = one.model_copy(update={"optimizer_bytes": 12 * sizes.trained})  # float32 masters and two moments
    terms, _ = parallel_plan(one, sizes, "fsdp", devices, arithmetic_s=1.0, network=NODES)
    on_the_way = 6 * sizes.block
    assert 16 * sizes.trained / devices == pytest.approx(shard, rel=0.02)
    assert terms.total - 16 * sizes.trained / devices - on_the_way == pytest.approx(rest, rel=0.15)
    assert (terms.total < 80e9) == fits


def test_a_pack_of_7800_tokens_balances_the_network_between_nodes() -> None:
    """docs/scale.md: 565 GB at 50 GB/s are 11 s, in which 400 TFLOP/s compute 7,800 tokens."""
    moved = fsdp_moved_bytes(FULL_70B, 32)
    assert moved == pytest.approx(565e9, rel=0.04)
    assert moved / 50e9 * 400e12 / (8 * 70.6e9) == pytest.approx(7_800, rel=0.04)
    few, many = (
        parallel_plan(Terms(), FULL_70B, "fsdp", 32, arithmetic_s=8 * 70.6e9 * tokens / 400e12, network=NODES)[1]
        for tokens in (4_096, 8_192)
    )
    assert (few.bound, many.bound) == ("network", "arithmetic")
    assert "1.9 times the tokens" in few.sentence
    assert step_s_of(few) == few.network_s


def test_ddp_moves_the_gradients_once_and_waits_for_them() -> None:
    sizes = ModelSizes(frozen=8_000_000_000, trained=42_000_000, outside=0, block=0)
    one = Terms(weights_bytes=16_000_000_000, temporary_bytes=10)
    terms, parallel = parallel_plan(one, sizes, "ddp", 4, arithmetic_s=2.0, network=NODES, packs=3)
    assert parallel.moved_bytes == 2 * 3 / 4 * 4 * 42_000_000 == ddp_moved_bytes(sizes, 4)  # 252 MB, however many packs
    assert terms.weights_bytes == one.weights_bytes
    assert terms.temporary_bytes == 10 + 64 * 2**20
    assert step_s_of(parallel) == pytest.approx(2.0 + 252e6 / 50e9)
    assert parallel.sentence.endswith("the one follows the other.")


def test_the_bucket_is_that_of_training_and_never_more_than_the_gradients() -> None:
    small = ModelSizes(frozen=0, trained=1000, outside=0, block=0)
    large = ModelSizes(frozen=0, trained=10**9, outside=0, block=0, largest_trained=10**8)
    added = [
        parallel_plan(Terms(), sizes, "ddp", 2, arithmetic_s=1, network=NODES)[0].total for sizes in (small, large)
    ]
    assert added == [4000, 4 * 10**8]
    middle = ModelSizes(frozen=0, trained=10**9, outside=0, block=0)
    assert parallel_plan(Terms(), middle, "ddp", 2, arithmetic_s=1, network=NODES)[0].total == 4 * BUCKET_ELEMENTS


def test_fsdp_moves_for_every_pack() -> None:
    one, three = (
        parallel_plan(Terms(), LORA_70B, "fsdp", 8, arithmetic_s=1, network=NVLINK, packs=packs)[1] for packs in (1, 3)
    )
    assert three.moved_bytes == pytest.approx(3 * one.moved_bytes)


def test_the_network_is_the_link_within_a_node_and_a_share_of_the_nodes_beyond() -> None:
    h100 = find_device("H100")
    assert network_of(h100, 8).bytes_s == pytest.approx(351e9)
    assert network_of(h100, 16).bytes_s == pytest.approx(50e9)
    with pytest.raises(BadInput, match="knows no link"):
        network_of(replace(h100, link_bytes_s=None), 2)


def test_one_device_is_not_several() -> None:
    with pytest.raises(BadInput, match="not several"):
        parallel_plan(Terms(), LORA_70B, "ddp", 1, arithmetic_s=1, network=NVLINK)


def test_notes_name_the_numbers() -> None:
    notes = {note.term: note.formula for note in parallel_notes(LORA_70B, "fsdp", 8)}
    assert notes["weights"].startswith("a shard of 70.6e9 weights / 8 + 4.2 GB outside of blocks, whole + 5.1 GB of 3")
    assert parallel_notes(LORA_70B, "ddp", 8)[0].formula == "+ 67.1 MB bucket"
