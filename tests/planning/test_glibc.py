"""The model of glibc's heap: single rules by hand, what holds after any sequence, and one real process beside it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.planning.glibc import FIRST_THRESHOLD, LARGEST_THRESHOLD, PAGE, Heap

KB, MB = 1 << 10, 1 << 20
BLOCK = 64 * KB - 8  # its chunk is 64 kB, and the next aligned block begins where it ends


def _address(heap: Heap, number: int) -> int:
    return heap._taken[number].address


def _is_mapped(heap: Heap, number: int) -> bool:
    return heap._taken[number].mapped


def _heap_with_holes(*sizes: int) -> tuple[Heap, list[int]]:
    """A heap with free chunks of about these sizes, each between two blocks, and where they begin."""
    heap = Heap(LARGEST_THRESHOLD)
    pairs = [(heap.malloc(size), heap.malloc(KB)) for size in sizes]
    places = [_address(heap, hole) for hole, _ in pairs]
    for hole, _ in pairs:
        heap.free(hole)
    return heap, places


# -- single rules --------------------------------------------------------------------------------------------------


def test_one_small_block_takes_one_page_and_a_large_one_its_pages() -> None:
    heap = Heap()
    heap.malloc(1000)
    assert heap.resident_bytes == PAGE
    mapped = heap.malloc(10 * MB)
    assert heap.resident_bytes == PAGE + 10 * MB + PAGE, "the header and the alignment need a page more"
    heap.free(mapped)
    assert heap.resident_bytes == PAGE, "a mapping ends with its block"
    assert heap.peak_bytes == 2 * PAGE + 10 * MB


def test_the_smallest_hole_that_fits_is_taken() -> None:
    heap, (large, small, _) = _heap_with_holes(900 * KB, 300 * KB, 100 * KB)
    assert _address(heap, heap.malloc(200 * KB)) == small
    assert _address(heap, heap.malloc(200 * KB)) == large, "what is left of the small hole is too small now"
    assert _address(heap, heap.malloc(600 * KB)) > large, "the rest of the large hole is used on"


def test_a_hole_of_exactly_the_size_is_not_used_again_since_alignment_may_need_more() -> None:
    heap, (hole,) = _heap_with_holes(BLOCK)
    assert _address(heap, heap.malloc(BLOCK)) > hole, "64 bytes for the alignment and 32 for a chunk before it"
    again = heap.malloc(BLOCK - 96)
    assert _address(heap, again) == hole


def test_a_freed_block_is_merged_with_the_holes_on_both_sides() -> None:
    heap = Heap(LARGEST_THRESHOLD)
    first, middle, last, guard = (heap.malloc(BLOCK) for _ in range(4))
    place, behind = _address(heap, first), _address(heap, guard)
    heap.free(first)
    heap.free(last)
    assert _address(heap, heap.malloc(150 * KB)) > behind, "neither hole holds so much"
    heap.free(middle)
    assert _address(heap, heap.malloc(150 * KB)) == place


def test_holes_that_do_not_touch_are_not_merged() -> None:
    heap = Heap(LARGEST_THRESHOLD)
    blocks = [heap.malloc(BLOCK) for _ in range(8)]
    for block in blocks[::2]:
        heap.free(block)
    resident = heap.resident_bytes
    heap.malloc(4 * BLOCK)
    assert heap.resident_bytes >= resident + 4 * BLOCK - 2 * PAGE, "a quarter of a million free bytes are of no use"


def test_the_top_is_given_back_only_from_twice_the_threshold_on() -> None:
    heap = Heap()  # 128 kB: the top is trimmed from 256 kB on, down to 128 kB
    blocks = [heap.malloc(BLOCK) for _ in range(5)]
    pages = [heap.resident_bytes // PAGE]
    for block in reversed(blocks[2:]):
        heap.free(block)
        pages.append(heap.resident_bytes // PAGE)
    # Two blocks stay (32 pages and a bit), and 32 pages above them.
    assert pages == [81, 81, 81, 65]


def test_blocks_from_the_threshold_on_are_mapped_and_the_threshold_grows_with_them() -> None:
    heap = Heap()
    assert not _is_mapped(heap, heap.malloc(FIRST_THRESHOLD - 200))
    block = heap.malloc(3_000_000)
    assert _is_mapped(heap, block)
    heap.free(block)
    assert 3_000_000 < heap.threshold < 3_000_000 + 2 * PAGE
    assert heap.trim_threshold == 2 * heap.threshold
    assert not _is_mapped(heap, heap.malloc(3_000_000)), "the same size comes from the heap from now on"
    assert _is_mapped(heap, heap.malloc(3_010_000))


def test_the_threshold_ends_at_32_megabytes() -> None:
    heap = Heap()
    for size in (40 * MB, 32 * MB):
        heap.free(heap.malloc(size))
        assert heap.threshold == FIRST_THRESHOLD
    heap.free(heap.malloc(31 * MB))
    assert not _is_mapped(heap, heap.malloc(31 * MB))
    assert _is_mapped(heap, heap.malloc(32 * MB))


def test_a_block_that_the_top_has_room_for_is_not_mapped() -> None:
    heap = Heap(LARGEST_THRESHOLD)
    heap.free(heap.malloc(20 * MB))
    heap.threshold = MB
    assert not _is_mapped(heap, heap.malloc(10 * MB))


def test_trim_gives_back_the_pages_that_lie_wholly_in_free_chunks() -> None:
    heap, _ = _heap_with_holes(10 * MB, 5 * MB)
    before = heap.resident_bytes
    assert before > 15 * MB
    heap.trim()
    assert heap.resident_bytes <= 4 * PAGE
    heap.malloc(4 * MB)
    assert heap.resident_bytes <= 4 * MB + 6 * PAGE, "only what is written is there again"


# -- what must hold after any sequence -----------------------------------------------------------------------------

_SIZES = st.one_of(st.integers(1, 400), st.integers(1, 200_000), st.integers(1, 48).map(lambda n: 65_536 * n))
_CALLS = st.lists(
    st.one_of(st.tuples(st.just("malloc"), _SIZES), st.tuples(st.sampled_from(["free", "trim"]), st.integers(0, 99))),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(calls=_CALLS, threshold=st.sampled_from([FIRST_THRESHOLD, LARGEST_THRESHOLD]))
def test_any_sequence_leaves_the_heap_whole(calls: list[tuple[str, int]], threshold: int) -> None:
    heap, live = Heap(threshold), {}
    for call, value in calls:
        if call == "malloc":
            live[heap.malloc(value)] = value
        elif call == "trim" and value < 20:
            heap.trim()
        elif live:
            number = list(live)[value % len(live)]
            del live[number]
            heap.free(number)
        assert heap.resident_bytes >= sum(live.values()) // PAGE * PAGE
        assert heap.peak_bytes >= heap.resident_bytes
        _check_whole(heap, live)
    for number in live:
        heap.free(number)
    assert (heap._top, heap._by_size, heap._size_at, heap._begin_of) == (0, [], {}, {})
    assert heap.resident_bytes <= max(heap.trim_threshold, 256 * KB)
    heap.trim()
    assert heap.resident_bytes <= PAGE


def _check_whole(heap: Heap, live: dict[int, int]) -> None:
    """Blocks and free chunks lie side by side from 0 to the top, and every list of free chunks tells the same."""
    taken = {number: block for number, block in heap._taken.items() if not block.mapped}
    assert set(heap._taken) == set(live)
    for number, block in taken.items():
        assert (block.address + 16) % 64 == 0
        assert block.size >= live[number] + 8
        first, last = block.address // PAGE, (block.address + 16 + live[number] - 1) // PAGE
        assert heap._touched._bits[first : last + 1] == b"\1" * (last + 1 - first), "a block's pages are there"
    free = dict(heap._size_at)
    assert heap._by_size == sorted((size, address) for address, size in free.items())
    assert heap._begin_of == {address + size: address for address, size in free.items()}
    chunks = sorted([(block.address, block.size) for block in taken.values()] + list(free.items()))
    assert all(a + size == b for (a, size), (b, _) in pairwise(chunks)), "nothing overlaps and nothing is lost"
    assert not any(a in free and b in free for (a, _), (b, _) in pairwise(chunks)), "neighbours are merged"
    if chunks:
        assert chunks[0][0] == 0 and sum(chunks[-1]) == heap._top
        assert chunks[-1][0] not in free, "a free chunk below the top is part of it"
    assert heap._end % PAGE == 0 and heap._top <= heap._end
    assert heap._touched.count == sum(heap._touched._bits)


# -- a real process ------------------------------------------------------------------------------------------------

_SCRIPT = """
import ctypes, json, os, sys
import torch

statm, libc = os.open("/proc/self/statm", os.O_RDONLY), ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def resident():
    return int(os.pread(statm, 100, 0).split()[1]) * 4096

calls, seen = json.load(sys.stdin), []
blocks = [torch.UntypedStorage(0) for _ in calls]  # so that no small objects come in between
for _ in range(2):
    blocks[0].resize_(33_554_000)  # mapped and freed: from now on blocks of up to 32 MB come from the heap
    blocks[0].fill_(1)
    blocks[0].resize_(0)
kept = [libc.malloc(size) for size in (4 << 20, 1 << 20, 1 << 18, 1 << 16, 1 << 14) for _ in range(64)]  # fills holes
for size in range(24, 1040, 16):  # the thread's cache keeps seven chunks of a size apart; it is full from now on
    for small in [libc.malloc(size) for _ in range(8)]:
        libc.free(small)
libc.malloc_trim(0)
begin = resident()
for call, name, size in calls:
    if call == "malloc":
        blocks[name].resize_(size)
        blocks[name].fill_(1)
    elif call == "free":
        blocks[name].resize_(0)
    else:
        seen.append(resident() - begin)
print(json.dumps(seen))
"""


def _scripted_calls() -> list[tuple[str, int, int]]:
    """Hundreds of blocks from 20 kB to 60 MB, most of them freed soon and some late; a look after every 20 calls."""
    import random

    draw, live, calls = random.Random(4), dict[int, int](), list[tuple[str, int, int]]()
    for number in range(400):
        size = round(20e3 * 3000 ** draw.random())
        live[number] = size
        calls.append(("malloc", number, size))
        while sum(live.values()) > 250e6 or (live and draw.random() < 0.4):
            gone = draw.choice(list(live))
            del live[gone]
            calls.append(("free", gone, 0))
        if number % 20 == 19:
            calls.append(("look", 0, 0))
    return calls + [("free", number, 0) for number in live] + [("look", 0, 0)]


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or os.sysconf("SC_PAGE_SIZE") != PAGE,
    reason="the model is of glibc on Linux with pages of 4 kB",
)
def test_a_real_process_holds_what_the_model_says() -> None:
    """With nothing in the heap but the script's blocks; small objects between them would hold holes apart."""
    calls = _scripted_calls()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "LD_PRELOAD", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input=json.dumps(calls), text=True, capture_output=True, env={**env, "OMP_NUM_THREADS": "1"}, check=True,
    )  # fmt: skip
    real = json.loads(done.stdout)
    heap, numbers, live, modelled, used = Heap(LARGEST_THRESHOLD), dict[int, int](), dict[int, int](), [], []
    for call, name, size in calls:
        if call == "malloc":
            numbers[name], live[name] = heap.malloc(size), size
        elif call == "free":
            heap.free(numbers.pop(name))
            del live[name]
        else:
            modelled.append(heap.resident_bytes)
            used.append(sum(live.values()))
    assert len(real) == len(modelled) == 21
    for look, (truth, said) in enumerate(zip(real, modelled, strict=True)):
        assert abs(said - truth) <= 0.01 * truth + 2e6, f"look {look}: {said / 1e6:.1f} MB, really {truth / 1e6:.1f}"
    wasted = [truth > 1.03 * live + 8e6 for truth, live in zip(real, used, strict=True)]
    assert sum(wasted) >= 5, "the sum of the blocks alone would not have passed"
