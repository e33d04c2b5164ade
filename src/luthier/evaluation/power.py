"""What a paired comparison of n items could have seen, and how many items it would take.

Both answer before or beside the data; they are normal approximations, checked by simulation, and decide nothing.

    >>> items_needed(0.10, 0.30), round(detectable_difference(200, 0.30), 3)
    (228, 0.106)
"""

from __future__ import annotations

import math

from scipy.special import ndtri

from luthier.ground.errors import BadInput


def items_needed(difference: float, discordant_share: float, *, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the items that show a paired difference Δ when the systems disagree on a share d of the items.

    n = K (d - Δ²) / Δ² with K = (z_{1-α/2} + z_{power})², 7.85 by default: the variance of one item's paired difference
    is d - Δ² (Connor 1987). At least |Δ| of the items must disagree, so a smaller d counts as |Δ|. `None` for Δ = 0: no
    number of items shows what is not there.
    """
    return items_for_moment(difference, max(discordant_share, abs(difference)), power=power, alpha=alpha)


def items_for_moment(difference: float, second_moment: float, *, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the same for scores of any kind, with the mean squared paired difference in the place of d."""
    if difference == 0.0:
        return None
    squared = difference * difference
    return max(1, math.ceil(_factor(power, alpha) * (max(second_moment, squared) - squared) / squared))


def detectable_difference(n: float, discordant_share: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest paired difference that n items would have shown with this power; 1 without items.

    The formula of `items_needed`, solved for Δ: √(K d / (n + K)), and not below K / (n + K), where the systems disagree
    in one direction alone: an observed d of 0 on few items does not mean that small differences could be seen.
    """
    factor = _factor(power, alpha)
    least = factor / (n + factor)
    return min(1.0, max(detectable_for_moment(n, discordant_share, power=power, alpha=alpha), least))


def detectable_for_moment(n: float, second_moment: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the same for scores of any kind; where all items agree, the limit of `detectable_difference` holds."""
    factor = _factor(power, alpha)
    if second_moment <= 0.0 or n <= 0:
        return factor / (max(n, 0.0) + factor)
    return min(1.0, math.sqrt(factor * second_moment / (n + factor)))


def _factor(power: float, alpha: float) -> float:
    if not (0.0 < alpha < 1.0 and 0.5 <= power < 1.0):
        raise BadInput(f"power {power} must lie in [0.5, 1) and alpha {alpha} between 0 and 1")
    return float(ndtri(1 - alpha / 2) + ndtri(power)) ** 2
