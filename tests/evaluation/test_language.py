"""Learned and forgotten: ratios of sums, paired intervals over documents, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.evaluation.bits import TextScore
from luthier.evaluation.language import change_of, changes_of, contrast_of, language_result, loss_of

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(50, 3000, 60)


def documents(rate: float, noise: float = 0.05, seed: int = 1, count: int = 60) -> list[TextScore]:
    random = np.random.default_rng(seed)
    rates = rate + noise * random.standard_normal(count)
    return [
        TextScore(f"d{n}", None, float(size * r), int(size), int(size) // 4)
        for n, (size, r) in enumerate(zip(BYTES, rates, strict=False))
    ]


def test_bits_per_byte_are_a_ratio_of_sums_and_its_interval_that_of_a_bootstrap() -> None:
    scores = documents(1.2, 0.3)
    loss = loss_of("base", "domain", scores, level=0.95, seed=0)
    bits, size = np.array([s.bits for s in scores]), np.array([s.bytes for s in scores])
    assert loss.bits_per_byte == pytest.approx(bits.sum() / size.sum())
    assert (loss.bytes, loss.tokens) == (size.sum(), sum(s.tokens for s in scores))
    picks = np.random.default_rng(5).integers(0, 60, (20_000, 60))
    plain = np.quantile(bits[picks].sum(1) / size[picks].sum(1), [0.025, 0.975])
    assert loss.interval == pytest.approx(tuple(plain), abs=0.02)
    assert loss.interval[0] <= loss.bits_per_byte <= loss.interval[1]


def test_a_paired_difference_sees_what_two_intervals_would_not() -> None:
    base = documents(1.2, 0.4)
    better = [TextScore(s.id, None, s.bits * 0.97, s.bytes, s.tokens) for s in base]
    found = change_of("domain", "finetuned", "base", better, base, level=0.95, seed=0)
    assert found.relative == pytest.approx(-0.03)
    assert found.interval.high < 0 and found.p < 0.001
    lone = [loss_of("x", "domain", s, level=0.95, seed=0) for s in (base, better)]
    assert lone[0].interval[0] < lone[1].interval[1], "the two intervals overlap"
    contrast = contrast_of(found, documents=60, level=0.95, margin=0.03)
    assert contrast.verdict == "better" and contrast.difference == pytest.approx(-found.difference / 8)


def test_groups_are_resampled_together() -> None:
    scores = documents(1.0, 0.3)
    grouped = [TextScore(s.id, f"g{n // 10}", s.bits, s.bytes, s.tokens) for n, s in enumerate(scores)]
    shifted = [TextScore(s.id, s.group, s.bits + 0.1 * (n // 10) * s.bytes, s.bytes, s.tokens)
               for n, s in enumerate(grouped)]  # fmt: skip
    alone = [TextScore(s.id, None, s.bits, s.bytes, s.tokens) for s in shifted]
    wide = loss_of("base", "domain", shifted, level=0.95, seed=0).interval
    narrow = loss_of("base", "domain", alone, level=0.95, seed=0).interval
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


@pytest.mark.parametrize(
    ("domain", "general", "said"),
    [
        (0.8, 1.03, ["Learned: domain text takes 0.8", "(−33 %", "Forgotten: general text takes 1.03"]),
        (0.8, 0.9, ["Learned: domain", "Forgotten: nothing, rather the opposite: general"]),
        (1.3, 1.0, ["Learned: nothing, rather the opposite", "Forgotten: nothing that can be seen"]),
    ],
)
def test_learned_and_forgotten_stand_side_by_side(domain: float, general: float, said: list[str]) -> None:
    scores = {
        "base": {"domain": documents(1.2), "general": documents(1.0, 0.001)},
        "finetuned": {
            "domain": documents(domain, seed=2),
            "general": documents(general, 0.001, seed=1 if general == 1.0 else 3),
        },
    }
    result = language_result(scores, level=0.95, seed=0)
    for part in said:
        assert part in result.sentence, result.sentence
    assert [(loss.system, loss.text) for loss in result.losses] == [
        ("base", "domain"), ("base", "general"), ("finetuned", "domain"), ("finetuned", "general"),
    ]  # fmt: skip
    assert all(f"{change.difference:.3f}".strip("-") in change.sentence for change in result.changes)


def test_without_general_text_it_says_that_forgetting_was_not_measured() -> None:
    scores = {"base": {"domain": documents(1.2)}, "finetuned": {"domain": documents(0.8)}}
    assert "not measured: data.general" in language_result(scores, level=0.95, seed=0).sentence
    lone = language_result({"base": {"domain": documents(1.2)}}, level=0.95, seed=0)
    assert lone.changes == [] and "1.2" in lone.sentence
    assert changes_of({"base": {"domain": documents(1.2)}}, level=0.95, seed=0) == []


def test_other_documents_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same documents"):
        change_of("domain", "a", "b", documents(1.0)[:5], documents(1.0)[1:6], level=0.95, seed=0)
