"""What a rule is and what it says. Holds no rule; those stand in `before`, `choice` and `limits`.

>>> Said("R0", "Add 38 test items.", (), {"missing": 38}).advice().text
'Add 38 test items.'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.advice.evidence import Evidence, plain
from luthier.ground.results import Advice


@dataclass(frozen=True)
class Said:
    """What one rule says.

    Attributes:
        rule: its id.
        step: what to do, one sentence with its number.
        why: the evidence, each sentence with its numbers.
        numbers: every number that the sentences use, unrounded.
        command: the command that does the step, if one does.
    """

    rule: str
    step: str
    why: tuple[str, ...]
    numbers: dict[str, Any]
    command: str | None = None

    def advice(self) -> Advice:
        text = " ".join((self.step, *self.why))
        return Advice(rule=self.rule, text=text, numbers=plain(self.numbers), command=self.command)


@dataclass(frozen=True)
class Rule:
    """One question of the procedure.

    Attributes:
        name: its id, such as `R4`.
        trigger: what must be seen for it to speak.
        ask: looks at the evidence and returns what there is to say: often nothing.
    """

    name: str
    trigger: str
    ask: Callable[[Evidence], Sequence[Said]]
