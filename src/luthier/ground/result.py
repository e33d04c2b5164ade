"""The base of every result type.

>>> Result().model_dump()
{}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Base of every result: frozen and strict, written as JSON with `model_dump_json()`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    html: ClassVar[Callable[[Any], str]] = lambda _: ""  # how a notebook shows a result; set by the verbs

    def _repr_html_(self) -> str:
        return type(self).html(self)
