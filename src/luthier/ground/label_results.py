"""What `classify` returns: a label and its probability for each text.

>>> ClassifiedText(text="My card was refused.", label="card", probabilities={"card": 0.9, "loan": 0.1}).label
'card'
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.ground.result import Result
from luthier.ground.results import Provenance


class ClassifiedText(Result):
    text: str
    label: str | None  # of several: a JSON list; of regression: a number; None if the text could not be read
    probabilities: dict[str, float] = Field(default_factory=dict)  # empty for regression
    cause: str | None = None  # why there is no label


class ClassifyResult(Result):
    kind: Literal["single", "multi", "regression"]
    labels: list[str]
    answers: list[ClassifiedText]
    adapter: str
    provenance: Provenance
    seconds: float
