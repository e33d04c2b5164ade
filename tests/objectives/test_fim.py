"""Fill in the middle against a transform written from the paper's description; nothing is lost by any of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from luthier.ground.errors import BadInput
from luthier.ground.spec import AdapterSpec, InfillSpec, TrainSpec
from luthier.objectives.base import Objective, ObjectiveContext, make_objective
from luthier.objectives.conformance import check_objective
from luthier.objectives.fim import PartIds, filling_text, psm, spm, trimmed
from luthier.objectives.gaps import Parts, draw_gap, line_starts
from luthier.objectives.infill import FillInTheMiddle
from luthier.objectives.sentinels import KNOWN, Spelling, find_sentinels
from luthier.rows.packing import one_pack
from luthier.rows.template import Renderer, RowRefused
from luthier.rows.types import Encoded, Message, Row
from objectives.test_objectives import cross_entropy_in_numpy
from rows.conftest import make_sentencepiece, make_tokenizer
from rows.families import CHATML, LLAMA2, Family

STARCODER = Family(
    template=CHATML.template,
    eos="<|endoftext|>",
    end="<|im_end|>",
    specials=(
        "<|endoftext|>",
        "<fim_prefix>",
        "<fim_suffix>",
        "<fim_middle>",
        "<file_sep>",
        "<|im_start|>",
        "<|im_end|>",
    ),
)
TEXT = "def area(width, height):\n    size = width * height\n    return size\n\n\nprint(area(2, 3))\n"
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=80)


@cache
def starcoder() -> PreTrainedTokenizerFast:
    return make_tokenizer(STARCODER)


def objective(
    tokenizer: PreTrainedTokenizerFast | None = None, max_length: int = 2048, **infill: object
) -> FillInTheMiddle:
    train = TrainSpec(max_length=max_length, infill=InfillSpec.model_validate(infill))
    made = make_objective("infill", ObjectiveContext(Renderer(tokenizer or starcoder()), train=train))
    assert isinstance(made, FillInTheMiddle)
    return made


def sections(encoded: Encoded, made: FillInTheMiddle) -> tuple[list[int], list[int], list[int]]:
    """Undo the transform by looking for the sentinels: what stands before, after, and behind the middle's mark."""
    ids, marks = encoded.ids_T.tolist(), made.sentinels
    assert ids.pop() == made.end_id
    first, second, third = (ids.index(mark) for mark in (marks.prefix, marks.suffix, marks.middle))
    return ids[first + 1 : second], ids[second + 1 : third], ids[third + 1 :]


def restored(encoded: Encoded, made: FillInTheMiddle) -> str:
    before, after, behind = sections(encoded, made)
    return made.renderer.tokens.decode([*before, *behind, *after])


# -- the paper's transform, written a second time ----------------------------------------------------------------------


def as_published(
    text: str, cuts: tuple[int, int], order: str, encode: Callable[[str], list[int]], ids: dict[str, int]
) -> list[int]:
    """Split at two points, encode each part by itself, join them around the sentinels."""
    low, high = sorted(cuts)
    prefix, middle, suffix = encode(text[:low]), encode(text[low:high]), encode(text[high:])
    if order == "PSM":
        joined = [ids["PRE"], *prefix, ids["SUF"], *suffix, ids["MID"], *middle]
    else:  # variant 2: PSM of an empty prefix, whose middle is the prefix and the middle
        joined = [ids["PRE"], ids["SUF"], *suffix, ids["MID"], *prefix, *middle]
    return [*joined, ids["EOT"]]


@given(TEXTS, st.data())
@settings(max_examples=150, deadline=None)
def test_both_orders_are_the_published_ones(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))))
    row = Row("1", "t:1", text=text, gap=(min(cuts), max(cuts)))
    tokenizer = starcoder()
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<fim_{word}>")
        for name, word in zip(("PRE", "SUF", "MID"), ("prefix", "suffix", "middle"), strict=True)
    }
    ids["EOT"] = tokenizer.eos_token_id
    for order, rate in (("PSM", 0.0), ("SPM", 1.0)):
        expected = as_published(text, cuts, order, lambda part: tokenizer.encode(part, add_special_tokens=False), ids)
        assert objective(spm_rate=rate).encode(row).ids_T.tolist() == expected


@given(TEXTS, st.integers(0, 99), st.sampled_from(["character", "line"]), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=150, deadline=None)
def test_undoing_the_transform_gives_the_text_byte_for_byte(
    text: str, number: int, spans: str, spm_rate: float
) -> None:
    made = objective(rate=1.0, spans=spans, spm_rate=spm_rate)
    assert restored(made.encode(Row(str(number), "t:1", text=text)), made).encode() == text.encode()


def test_special_tokens_written_in_a_text_stay_text() -> None:
    made = objective(rate=1.0)
    text = "a <fim_middle> b <|endoftext|> c"
    encoded = made.encode(Row("1", "t:1", text=text, gap=(2, 16)))
    assert encoded.ids_T.tolist().count(made.sentinels.middle) == 1
    assert restored(encoded, made) == text


# -- gaps --------------------------------------------------------------------------------------------------------------


@given(TEXTS, st.integers(0, 10**6))
def test_a_gap_lies_in_the_text_and_its_parts_make_it_up(text: str, seed: int) -> None:
    for spans in ("character", "line"):
        gap = draw_gap(text, spans, seed)  # type: ignore[arg-type]
        assert 0 <= gap[0] <= gap[1] <= len(text)
        assert Parts.of(text, gap).text == text
        assert gap == draw_gap(text, spans, seed)  # type: ignore[arg-type]


def test_two_cut_points_are_uniform_over_characters() -> None:
    """Both ends of the text, empty gaps and whole texts come as often as two independent uniform points say."""
    gaps = [draw_gap("abc", "character", seed) for seed in range(8000)]
    found = {gap: gaps.count(gap) / len(gaps) for gap in set(gaps)}
    assert len(found) == 10
    for (first, end), share in found.items():
        assert share == pytest.approx((1 if first == end else 2) / 16, abs=0.015)


def test_line_gaps_are_whole_lines_and_never_all_of_them() -> None:
    starts = line_starts(TEXT)
    gaps = {draw_gap(TEXT, "line", seed) for seed in range(600)}
    assert all(first in starts and end in starts and 0 < end - first < len(TEXT) for first, end in gaps)
    assert len(gaps) == 6 * 7 // 2 - 1  # all pairs of seven line boundaries, without the whole text


# -- how rows are trained ----------------------------------------------------------------------------------------------


def test_the_rate_and_the_orders_are_as_asked() -> None:
    made = objective(rate=0.7, spm_rate=0.25)
    encoded = [made.encode(Row(str(n), "t:1", text=TEXT)) for n in range(2000)]
    moved = [one.ids_T.tolist() for one in encoded if made.sentinels.middle in one.ids_T]
    reordered = [ids for ids in moved if ids[1] == made.sentinels.suffix]
    assert len(moved) / 2000 == pytest.approx(0.7, abs=0.04)
    assert len(reordered) / len(moved) == pytest.approx(0.25 + 0.75 / 87, abs=0.04)  # and PSM with an empty prefix
    plain = next(one for one in encoded if made.sentinels.middle not in one.ids_T)
    assert plain.ids_T.tolist() == [*starcoder().encode(TEXT), starcoder().eos_token_id]


def test_a_row_is_drawn_by_its_id_and_the_seed_alone() -> None:
    rows = [Row(str(n), f"t:{n}", text=TEXT) for n in range(20)]
    first = [objective().encode(row).ids_T.tolist() for row in rows]
    again = [objective().encode(row).ids_T.tolist() for row in reversed(rows)][::-1]
    assert first == again
    assert len({tuple(ids) for ids in first}) > 15


@pytest.mark.parametrize("order", [0.0, 1.0])
def test_the_loss_is_on_all_tokens_or_on_the_middle_only(order: float) -> None:
    row = Row("1", "t:1", text=TEXT, gap=(29, 50))
    made = objective(spm_rate=order, loss="middle")
    encoded = made.encode(row)
    assert made.renderer.tokens.decode(encoded.ids_T[encoded.target_T][:-1].tolist()) == TEXT[29:50]
    assert encoded.ids_T[encoded.target_T][-1] == made.end_id
    whole = objective(spm_rate=order, loss="all").encode(row)
    assert not whole.target_T[0] and whole.target_T[1:].all()


def test_a_rows_weight_counts_at_each_target() -> None:
    encoded = objective().encode(Row("1", "t:1", text=TEXT, gap=(29, 50), weight=2.0))
    assert encoded.weight_T is not None and (encoded.weight_T == 2.0).all()


def test_a_conversation_is_refused_with_its_place() -> None:
    with pytest.raises(RowRefused, match=r"^t:1: infill trains on text.*this row is a conversation"):
        objective().encode(Row("1", "t:1", messages=(Message("user", "a"), Message("assistant", "b"))))


# -- long texts --------------------------------------------------------------------------------------------------------


@given(TEXTS, st.integers(40, 60), st.sampled_from(["character", "line"]))
@settings(max_examples=60, deadline=None)
def test_long_texts_are_cut_into_pieces_that_fit_with_all_their_parts(part: str, longest: int, spans: str) -> None:
    made = objective(max_length=longest, rate=1.0, spans=spans)
    text = part + "a line of text\n" * 20
    pieces = made.encode_all(Row("1", "t:1", text=text))
    assert len(pieces) > 1 and max(map(len, pieces)) <= longest
    texts = [
        restored(one, made) if made.sentinels.middle in one.ids_T else made.renderer.tokens.decode(one.ids_T[:-1])
        for one in pieces
    ]
    assert "".join(texts) == text
    assert all(one.ids_T[-1] == made.end_id for one in pieces)


def test_a_gap_that_does_not_fit_loses_context_at_the_far_ends() -> None:
    text = "x" * 300 + "MIDDLE" + "y" * 300
    row = Row("1", "t:1", text=text, gap=(300, 306))
    train = TrainSpec(max_length=60, on_long="cut_prompt", infill=InfillSpec(spm_rate=0.0))
    made = make_objective("infill", ObjectiveContext(Renderer(starcoder()), train=train))
    encoded = made.encode(row)
    assert len(encoded) == 60 and encoded.cut == len(objective(spm_rate=0.0).encode(row)) - 60
    text_of_it = made.renderer.tokens.decode(encoded.ids_T.tolist())
    assert text_of_it.startswith("<fim_prefix>x") and text_of_it.endswith("y<fim_middle>MIDDLE<|endoftext|>")
    assert len(made.ask(row)) == 45  # a quarter is left for the answer


def test_the_shorter_side_leaves_its_room_to_the_other() -> None:
    kept = trimmed(PartIds(list(range(10)), [], list(range(100))), 30)
    assert (kept.prefix, kept.suffix) == (list(range(10)), list(range(20)))
    kept = trimmed(PartIds(list(range(100)), [], [1, 2]), 30)
    assert (kept.prefix, kept.suffix) == (list(range(72, 100)), [1, 2])
    kept = trimmed(PartIds(list(range(100)), [], list(range(100))), 31)
    assert (kept.prefix, kept.suffix) == (list(range(84, 100)), list(range(15)))


# -- sentinels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", KNOWN, ids=lambda spelling: spelling.prefix)
def test_a_models_own_sentinels_are_used(spelling: Spelling) -> None:
    own = (spelling.prefix, spelling.suffix, spelling.middle, *((spelling.end,) if spelling.end else ()))
    tokenizer = make_tokenizer(Family(CHATML.template, CHATML.eos, CHATML.end, (*CHATML.specials, *own)))
    found = find_sentinels(tokenizer)
    assert found is not None and found.spelling == spelling
    assert [found.prefix, found.suffix, found.middle] == tokenizer.convert_tokens_to_ids(list(own[:3]))
    made = objective(tokenizer)
    assert made.extensions == ()
    assert made.end_id == (tokenizer.convert_tokens_to_ids(spelling.end) if spelling.end else tokenizer.eos_token_id)
    assert {made.end_id, found.prefix} <= made.renderer.end_ids


def test_other_models_get_sentinels_of_their_own() -> None:
    tokenizer = make_tokenizer(CHATML)
    made = objective(tokenizer)
    assert [extension.name for extension in made.extensions] == [f"vocabulary-{len(tokenizer)}"]
    ids = made.encode(Row("1", "t:1", text=TEXT, gap=(0, 3))).ids_T
    assert {len(tokenizer), len(tokenizer) + 1, len(tokenizer) + 2} <= set(ids.tolist())
    assert find_sentinels(tokenizer) is None, "the base's tokenizer stays as it is"


def test_a_tokenizer_that_begins_texts_does_so_here() -> None:
    family = Family(
        LLAMA2.template, LLAMA2.eos, LLAMA2.end, (*LLAMA2.specials, "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"), bos="<s>"
    )
    tokenizer = make_sentencepiece(family, "first")
    made = objective(tokenizer, rate=1.0)
    starts = made.renderer.tokens.adds_bos
    assert (made.encode(Row("1", "t:1", text="a b")).ids_T[0] == tokenizer.bos_token_id) == starts


@pytest.mark.parametrize("style", ["first", "prepend"])
@pytest.mark.parametrize("middle", [" short answer", "answer", "\n  Paris", ""])
def test_the_first_space_of_a_filling_survives_sentencepiece(style: str, middle: str) -> None:
    specials = (*LLAMA2.specials, "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>")
    made = objective(
        make_sentencepiece(Family(LLAMA2.template, LLAMA2.eos, LLAMA2.end, specials, bos="<s>"), style), spm_rate=0.0
    )
    prefix, suffix = "the assistant writes a", " about the weather"
    text = prefix + middle + suffix
    encoded = made.encode(Row("1", "t:1", text=text, gap=(len(prefix), len(prefix + middle))))
    before, _, behind = sections(encoded, made)
    assert filling_text(made.renderer.tokens, before, behind) == middle


def test_no_end_token_is_told() -> None:
    tokenizer = make_tokenizer(STARCODER)
    tokenizer.eos_token = None
    with pytest.raises(BadInput, match="no end-of-text token"):
        objective(tokenizer)


# -- the prompt --------------------------------------------------------------------------------------------------------


@given(TEXTS, st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_asked_is_what_was_trained_up_to_the_middle(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    row = Row("1", "t:1", text=text, gap=(cuts[0], cuts[1]))
    for rate in (0.0, 1.0):
        made = objective(spm_rate=rate)
        prompt = made.ask(row)
        assert made.encode(row).ids_T[: len(prompt)].tolist() == prompt


def test_a_row_without_a_gap_cannot_be_asked() -> None:
    with pytest.raises(BadInput, match="no gap"):
        objective().ask(Row("1", "t:1", text=TEXT))


# -- the loss ----------------------------------------------------------------------------------------------------------


def tiny_gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    size = len(starcoder())
    config = GPT2Config(vocab_size=size, n_embd=8, n_layer=2, n_head=2, n_positions=128, initializer_range=0.3)
    return GPT2LMHeadModel(config)


@pytest.mark.parametrize("loss", ["all", "middle"])
def test_infill_passes_the_kit(loss: str) -> None:
    rows = [
        Row(str(n), f"t:{n}", text=text)
        for n, text in enumerate(["a short text", "def f(x):\n    return x", "two\nlines", "y"])
    ]
    check_objective(objective(rate=0.8, loss=loss), tiny_gpt2(), rows, reference=cross_entropy_in_numpy)


def test_the_loss_is_transformers_own() -> None:
    """Summed over rows with labels of −100 outside the mask."""
    model, made = tiny_gpt2().eval(), objective(rate=1.0, loss="middle")
    encoded = [made.encode(Row(str(n), "t:1", text=TEXT)) for n in range(4)]
    total, count = made.loss(model, one_pack(encoded))
    expected = 0.0
    for one in encoded:
        ids = torch.from_numpy(one.ids_T)[None]
        labels = torch.where(torch.from_numpy(one.target_T)[None], ids, -100)
        expected += float(model(input_ids=ids, labels=labels).loss.detach()) * one.target_tokens
    assert count == sum(one.target_tokens for one in encoded)
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)


def test_full_finetuning_grows_the_models_own_matrices() -> None:
    train = TrainSpec(adapter=AdapterSpec(kind="full"))
    made: Objective = make_objective("infill", ObjectiveContext(Renderer(make_tokenizer(CHATML)), train=train))
    assert len(made.extensions) == 1 and made.extensions[0].apply  # an extension that trains nothing beside the weights


def test_orders_keep_what_they_are_given() -> None:
    found = find_sentinels(starcoder())
    assert found is not None
    parts = PartIds([1, 2], [3], [4, 5])
    assert psm(found, parts).ids[psm(found, parts).asked :] == [3] == spm(found, parts).ids[spm(found, parts).asked :]
    assert np.isin([1, 2, 3, 4, 5], psm(found, parts).ids).all()
