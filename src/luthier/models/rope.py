"""How rotary positions are scaled for a longer window: what goes into a config's `rope_parameters`.

Rotary positions turn pair i of a head's d values by the angle position · b^(−2i/d) (Su et al. 2021). Each method
changes these frequencies for a window that is s times as long:

- `linear` divides all of them by s (Chen et al. 2023, arXiv:2306.15595);
- `ntk` raises the base to b · s^(d/(d−2)): the slowest is divided by s, the fastest stays (bloc97 2023);
- `base` raises it so that the pairs that turned once within the old window turn once within the new one (Liu et al.
  2023, arXiv:2310.05209), or to a base that is given;
- `yarn` divides slow pairs, keeps fast ones, and sharpens attention (Peng et al. 2023, arXiv:2309.00071);
- `llama3` does the same with another ramp and without the sharpening (Llama 3.1);
- `longrope` has a factor for each pair (Ding et al. 2024, arXiv:2402.13753). LongRoPE searches its factors; here they
  are derived: s^r, with r rising as in YaRN by how often a pair turns within the old window. Its lists for short and
  for long texts are the same, so that a cache that grows past the old window stays valid.

Numbers alone; no model is touched here.

    >>> scaled_rope({"rope_type": "default", "rope_theta": 10000.0}, "linear", 4.0, original=2048, size=64)["factor"]
    4.0
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

Method = Literal["linear", "ntk", "yarn", "longrope", "base", "llama3"]
BETA_FAST, BETA_SLOW = 32.0, 1.0  # turns within the old window from which a pair is kept, and up to which it is scaled
LOW_TURNS, HIGH_TURNS = 1.0, 4.0  # the same of Llama 3.1
SCALABLE = ("default", "linear", "yarn", "longrope", "llama3")
_OF_METHODS = (
    "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
    "mscale_all_dim", "truncate", "short_factor", "long_factor", "low_freq_factor", "high_freq_factor", "type",
)  # fmt: skip


def scaled_rope(
    rope: Mapping[str, Any], method: Method, factor: float, *, original: int, size: int, base: float | None = None
) -> dict[str, Any]:
    """Return the `rope_parameters` of a window that is `factor` times the one that the model was pretrained with.

    Args:
        rope: what the model has; a scaling in it is replaced, its base and its share of rotated values stay.
        original: the window that the model was pretrained with, in tokens.
        size: values of a head that are rotated.
        base: the raised base of the method `base` (default: derived).
    """
    kept = {key: value for key, value in rope.items() if key not in _OF_METHODS}
    theta = float(kept["rope_theta"])
    pretrained = {"factor": factor, "original_max_position_embeddings": original}
    changes: dict[Method, dict[str, Any]] = {
        "linear": {"rope_type": "linear", "factor": factor},
        "ntk": {"rope_type": "default", "rope_theta": theta * factor ** (size / (size - 2))},
        "base": {"rope_type": "default", "rope_theta": base or raised_base(theta, original, factor)},
        "yarn": {"rope_type": "yarn", **pretrained, "beta_fast": BETA_FAST, "beta_slow": BETA_SLOW},
        "llama3": {
            "rope_type": "llama3", **pretrained, "low_freq_factor": LOW_TURNS, "high_freq_factor": HIGH_TURNS,
        },
        "longrope": {"rope_type": "longrope", **pretrained, **_factors(theta, original, factor, size)},
    }  # fmt: skip
    return {**kept, **changes[method]}


def raised_base(theta: float, original: int, factor: float) -> float:
    """Return the base at which pairs that turned once in `original` tokens turn once in `factor` times as many.

    b^(log(s·T / 2π) / log(T / 2π)), the larger base of Liu et al. 2023, with b for their 10,000.
    """
    turns = math.log(original / (2 * math.pi))
    return float(theta ** (math.log(factor * original / (2 * math.pi)) / turns))


def pretrained_window(rope: Mapping[str, Any], window: int) -> int:
    """Return the window that a model was pretrained with, before the scaling in its config, if there is one."""
    if rope.get("original_max_position_embeddings"):
        return int(rope["original_max_position_embeddings"])
    factor = float(rope.get("factor") or 1.0)
    return round(window / factor) if rope.get("rope_type") == "linear" else window


def _factors(theta: float, original: int, factor: float, size: int) -> dict[str, list[float]]:
    """Return LongRoPE's lists: s^r with r from 0 (32 turns and more) to 1 (one turn and less) by the log of turns."""
    factors = []
    for pair in range(size // 2):
        turns = original * theta ** (-2 * pair / size) / (2 * math.pi)
        ramp = math.log(BETA_FAST / turns) / math.log(BETA_FAST / BETA_SLOW)
        factors.append(round(factor ** min(1.0, max(0.0, ramp)), 6))
    return {"short_factor": factors, "long_factor": list(factors)}
