"""The tools that are compared, and what the words in a peer's name mean.

A name is a tool and its options, joined by hyphens: `trl`, `trl-bf16-grouped-micro4-patched`, `hf-micro2`. Any
combination can be asked for; `SEARCH` lists those among which `--search` looks for TRL's best.

    >>> parse_peer("trl-grouped-micro4").options
    {'grouped': True, 'micro': 4}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

WORDS = {
    "bf16": "frozen (or all) weights in bfloat16",
    "fp32": "float32 throughout, no autocast",
    "nockpt": "gradient checkpointing off",
    "ckpt": "gradient checkpointing on",
    "packing": "the rows of a micro-batch packed end to end without padding",
    "grouped": "each step's rows sorted by length before they are cut into micro-batches",
    "chunked": "the tool's option for a chunked loss",
    "mixed": "float32 weights, bfloat16 arithmetic",
    "noprefix": "what rows of a step have in common at their beginning is computed for each (Luthier)",
    "patched": "TRL's loss scores label positions only, on a CPU too",
}
_HF_WORDS = frozenset(WORDS) - {"mixed", "noprefix"}


@dataclass(frozen=True)
class Tool:
    """One tool: the environment it lives in (None: Luthier's own), the script that runs it, the words it knows."""

    says: str
    env: str | None
    runner: str
    words: frozenset[str] = frozenset()
    takes_micro: bool = False


TOOLS = {
    "luthier": Tool("Luthier", None, "run_luthier.py", frozenset({"fp32", "mixed", "noprefix"})),
    "trl": Tool("TRL SFTTrainer + PEFT", "trl", "run_trl.py", _HF_WORDS, True),
    "hf": Tool("transformers Trainer + PEFT", "trl", "run_hf.py", _HF_WORDS - {"patched", "chunked", "packing"}, True),
    "litgpt": Tool("LitGPT", "litgpt", "run_litgpt.py", frozenset({"grouped", "fp32"}), True),
    "llamafactory": Tool(
        "LLaMA-Factory", "llamafactory", "run_llamafactory.py", _HF_WORDS - {"patched", "chunked", "packing"}, True
    ),
    "torchtune": Tool("torchtune", "torchtune", "run_torchtune.py", frozenset({"fp32", "ckpt", "grouped"}), True),
}

SEARCH = (
    "trl",
    "trl-bf16",
    "trl-fp32",
    "trl-packing",
    "trl-chunked",
    "trl-nockpt",
    "trl-bf16-nockpt",
    "trl-bf16-grouped",
    *(f"trl-bf16-grouped-micro{micro}" for micro in (1, 2, 4)),
    *(f"trl-bf16-nockpt-grouped-micro{micro}" for micro in (1, 2, 4, 8)),
    "trl-bf16-nockpt-packing",
    "trl-patched",
    "trl-bf16-patched",
    *(f"trl-bf16-nockpt-grouped-micro{micro}-patched" for micro in (1, 2, 4, 8)),
    "trl-bf16-nockpt-packing-patched",
    "trl-bf16-nockpt-packing-micro4-patched",
)
DEFAULT = (
    "luthier",
    "luthier-noprefix",
    "trl",
    "trl-bf16",
    "best",
    "best-patched",
    "hf",
    "litgpt",
    "llamafactory",
    "torchtune",
)
DEFAULT_FULL = ("luthier", "luthier-mixed", *DEFAULT[2:])
EXACT = "hf-fp32"  # float32 throughout, by a tool that is not Luthier: which curve is right
BEST, BEST_PATCHED = "best", "best-patched"


@dataclass(frozen=True)
class Peer:
    """One column of the comparison: a tool with options."""

    name: str
    tool: Tool
    options: dict[str, Any]

    @property
    def is_patched(self) -> bool:
        return bool(self.options.get("patched"))


def parse_peer(name: str) -> Peer:
    """Return what a name means.

    Raises:
        ValueError: nobody knows the tool, or the tool does not know a word.
    """
    first, *words = name.split("-")
    tool = TOOLS.get(first)
    if tool is None:
        raise ValueError(f'there is no tool "{first}"; the tools are {", ".join(TOOLS)}')
    options: dict[str, Any] = {}
    for word in words:
        micro = re.fullmatch(r"micro([1-9]\d*)", word) if tool.takes_micro else None
        if micro:
            options["micro"] = int(micro[1])
        elif word in tool.words:
            options[word] = True
        else:
            known = [*sorted(tool.words), *(["microN"] if tool.takes_micro else [])]
            raise ValueError(f'{first} has no option "{word}"; it has {", ".join(known) or "none"}')
    return Peer(name, tool, options)
