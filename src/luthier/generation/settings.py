"""How answers are written: the knobs of decoding, frozen.

Knows nothing of models or prompts.

    >>> Settings(max_new_tokens=8).greedy
    True
"""

from __future__ import annotations

from dataclasses import dataclass

from luthier.ground.spec import GenerationSpec


@dataclass(frozen=True)
class Settings:
    """How answers are written.

    Attributes:
        max_new_tokens: longest answer, in tokens.
        temperature: 0 takes the likeliest token (greedy); otherwise logits are divided by it.
        top_p: keep the smallest set of tokens with this share of the probability (nucleus); 1 keeps all.
        top_k: keep the k likeliest tokens; 0 keeps all.
        seed: seed of sampled answers.
        batch_size: most answers written together.
        stop: an answer ends before the first of these strings.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    batch_size: int = 32
    stop: tuple[str, ...] = ()

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @classmethod
    def from_spec(cls, spec: GenerationSpec, stop: tuple[str, ...] = ()) -> Settings:
        """Return the settings that a task file asks for."""
        return cls(
            max_new_tokens=spec.max_new_tokens,
            temperature=spec.temperature,
            top_p=spec.top_p,
            top_k=spec.top_k,
            seed=spec.seed,
            batch_size=spec.batch_size,
            stop=stop,
        )
