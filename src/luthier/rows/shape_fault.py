"""What is wrong with one record of a file, and how kinds of values are called. Decides nothing.

>>> kind_of([1])
'a list'
"""

from __future__ import annotations


class ShapeFault(Exception):
    """What is wrong with one record; `kind` counts it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def kind_of(value: object) -> str:
    """Return what a value of a record is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
