"""What happens to a row that is longer than the limit: one of three policies, never in silence.

`drop` leaves the row out; `cut_prompt` removes tokens from the prompt's beginning; `fail` refuses the set. Targets are
never cut: a row whose targets alone exceed the limit is left out under either of the first two. The caller counts.

    >>> import numpy as np
    >>> row = Encoded(np.arange(6), np.array([0, 0, 0, 0, 1, 1], bool), "t:1")
    >>> fit_length(row, 4, "cut_prompt").ids_T.tolist()
    [0, 3, 4, 5]
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from luthier.ground.errors import BadInput
from luthier.rows.types import Encoded

OnLong = Literal["drop", "cut_prompt", "fail"]


def fit_length(encoded: Encoded, max_length: int, on_long: OnLong) -> Encoded | None:
    """Return the row, the row with a shorter prompt, or None if it must be left out.

    A cut keeps the first token, which is the begin-of-text token of most models, and removes the tokens after it.
    Only what stands before the first target can be removed; what an encoder reads is never cut.

    Raises:
        BadInput: the row is too long and the policy is `fail`.
    """
    excess = len(encoded) - max_length
    if excess <= 0:
        return encoded
    if on_long == "fail":
        raise BadInput(
            f"the row has {len(encoded):,} tokens where {max_length:,} are allowed",
            where=encoded.place,
            fix="raise train.max_length, or choose on_long: drop or cut_prompt",
        )
    if on_long == "drop" or excess > cuttable(encoded):
        return None
    kept = np.r_[0, 1 + excess : len(encoded)]
    return dataclasses.replace(
        encoded,
        ids_T=encoded.ids_T[kept],
        target_T=encoded.target_T[kept],
        weight_T=None if encoded.weight_T is None else encoded.weight_T[kept],
        cut=encoded.cut + excess,
    )


def cuttable(encoded: Encoded) -> int:
    """Return how many tokens could be cut: those between the first token and the first target.

    Prompt tokens that are targets of a smaller weight than the answers' can be cut as well.
    """
    if not encoded.target_T.any() or encoded.encoder_S is not None:
        return 0
    first = encoded.target_T
    if encoded.weight_T is not None:
        first = first & (encoded.weight_T == encoded.weight_T[encoded.target_T].max())
    return max(int(first.argmax()) - 1, 0)
