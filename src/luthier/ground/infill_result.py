"""What `infill` returns: the fillings, and the text with them.

>>> Filling(line=2, column=5, replaced="", text="x + 1", tokens=4, seconds=0.1, finish="end").text
'x + 1'
"""

from __future__ import annotations

from typing import Literal

from luthier.ground.result import Result
from luthier.ground.results import Provenance


class Filling(Result):
    """What was written into one gap."""

    line: int  # where the gap begins, from 1
    column: int
    replaced: str  # what stood there before
    text: str
    tokens: int
    seconds: float
    finish: str  # end | length


class InfillResult(Result):
    text: str  # with the fillings in it
    fillings: list[Filling]
    method: Literal["fill in the middle", "span corruption"]
    adapter: str | None
    prompt_tokens: int
    cut_tokens: int  # tokens of the text that the model did not see, far from the gap
    provenance: Provenance
    seconds: float
