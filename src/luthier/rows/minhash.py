"""MinHash over character 5-grams, with locality-sensitive hashing: which texts may be alike, without all comparisons.

Signatures of 120 minima in 20 bands of 6: two texts with Jaccard similarity 0.8 share a band with probability 0.998,
with 0.5 in 27 of 100 cases, so candidates are verified with `jaccard` (Broder 1997; Leskovec, Rajaraman & Ullman,
chapter 3). It knows texts only, no rows.

    >>> a, b = shingles("the wheel is broken"), shingles("the wheel is broken!")
    >>> round(jaccard(a, b), 2)
    0.94
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HashArray = npt.NDArray[np.uint64]

GRAM = 5
BANDS, ROWS = 20, 6
MAX_CANDIDATES = 40  # verified per text; boilerplate data would otherwise compare all pairs
_SLICE = 4096  # shingles hashed at once: keeps the table of minima in the cache

_RANDOM = np.random.default_rng(20250101)
_FACTORS_P = _RANDOM.integers(1, 2**63, size=BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_SHIFTS_P = _RANDOM.integers(0, 2**63, size=BANDS * ROWS, dtype=np.uint64)
_BASE = np.uint64(0x9E3779B97F4A7C15)


def shingles(text: str) -> HashArray:
    """Return the sorted, distinct hashes of all runs of five characters (of the whole text if it is shorter)."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    size = min(GRAM, len(codes))
    if size == 0:
        return np.zeros(0, dtype=np.uint64)
    count = len(codes) - size + 1
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(size):
        hashes = hashes * _BASE + codes[offset : offset + count] + np.uint64(1)
    return np.unique(_mix(hashes))


def jaccard(a: HashArray, b: HashArray) -> float:
    """Return |a ∩ b| / |a ∪ b| of two sets of shingles; two empty sets are alike."""
    if len(a) == 0 and len(b) == 0:
        return 1.0
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


@dataclass(frozen=True)
class Sketch:
    """A text's shingles and the keys of its bands: texts that share a key may be alike."""

    grams: HashArray
    keys: tuple[bytes, ...]


def sketch(text: str) -> Sketch:
    """Return the sketch of a text."""
    grams = shingles(text)
    return Sketch(grams, _band_keys(grams))


class Similar:
    """An index of sketches that finds the earlier text most like a new one."""

    def __init__(self) -> None:
        self._sets: list[HashArray] = []
        self._buckets: dict[bytes, list[int]] = defaultdict(list)

    def nearest(self, new: Sketch, threshold: float) -> tuple[int, float] | None:
        """Return number and similarity of the likest text added so far, if it reaches `threshold`."""
        best: tuple[int, float] | None = None
        for number in self._candidates(new.keys):
            other = self._sets[number]
            shorter, longer = sorted((len(new.grams), len(other)))
            if shorter < threshold * longer:
                continue  # the Jaccard similarity is at most shorter / longer
            similarity = jaccard(new.grams, other)
            if similarity >= threshold and (best is None or similarity > best[1]):
                best = (number, similarity)
        return best

    def add(self, new: Sketch) -> int:
        """Add a text and return its number."""
        number = len(self._sets)
        self._sets.append(new.grams)
        for key in new.keys:
            self._buckets[key].append(number)
        return number

    def _candidates(self, keys: tuple[bytes, ...]) -> list[int]:
        """Return the texts that share a band, those that share most bands first."""
        shared = Counter[int]()
        for key in keys:
            shared.update(self._buckets.get(key, [])[:1000])
        return [number for number, _ in shared.most_common(MAX_CANDIDATES)]


def _band_keys(grams: HashArray) -> tuple[bytes, ...]:
    minima_P = np.full(BANDS * ROWS, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(grams), _SLICE):
        part_N = grams[start : start + _SLICE]
        hashed_PN = part_N[None, :] * _FACTORS_P[:, None] + _SHIFTS_P[:, None]
        np.minimum(minima_P, hashed_PN.min(axis=1), out=minima_P)
    bands = minima_P.reshape(BANDS, ROWS)
    return tuple(bytes([band]) + bands[band].tobytes() for band in range(BANDS))


def _mix(hashes: HashArray) -> HashArray:
    """Spread the bits (splitmix64), so that multiplication by an odd factor permutes well in the high bits."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
