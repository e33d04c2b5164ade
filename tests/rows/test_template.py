"""Rendering is what the families publish; masks cover the answers and their end tokens, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.rows.template import PLAIN, Renderer, RowRefused
from luthier.rows.types import Encoded, Message, Row
from rows.conftest import make_renderer, make_sentencepiece, make_tokenizer
from rows.families import CHATML, FAMILIES, GEMMA, LLAMA2, PHI3, ZEPHYR, Family

TALK = (
    Message("system", "Be short."),
    Message("user", "Hi"),
    Message("assistant", "Hello there"),
    Message("user", "What is the capital of France?"),
    Message("assistant", "Paris"),
)

# Written out by hand from the published formats.
PUBLISHED = {
    "chatml": (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello there<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
        "<|im_start|>assistant\nParis<|im_end|>\n"
    ),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 01 Jan 2025\n\nBe short.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello there<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhat is the capital of France?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nParis<|eot_id|>"
    ),
    "llama2": (
        "<s>[INST] <<SYS>>\nBe short.\n<</SYS>>\n\nHi [/INST] Hello there </s>"
        "<s>[INST] What is the capital of France? [/INST] Paris </s>"
    ),
    "mistral": (
        "<s>[INST] Hi[/INST] Hello there</s>[INST] Be short.\n\nWhat is the capital of France?[/INST] Paris</s>"
    ),
    "gemma": (
        "<bos><start_of_turn>user\nBe short.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello there<end_of_turn>\n"
        "<start_of_turn>user\nWhat is the capital of France?<end_of_turn>\n<start_of_turn>model\nParis<end_of_turn>\n"
    ),
    "phi3": (
        "<|system|>\nBe short.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello there<|end|>\n"
        "<|user|>\nWhat is the capital of France?<|end|>\n<|assistant|>\nParis<|end|>\n<|endoftext|>"
    ),
    "zephyr": (
        "<|system|>\nBe short.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello there</s>\n"
        "<|user|>\nWhat is the capital of France?</s>\n<|assistant|>\nParis</s>\n"
    ),
    "granite": (
        "<|start_of_role|>system<|end_of_role|>Be short.<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>Hello there<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>What is the capital of France?<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>Paris<|end_of_text|>\n"
    ),
    "deepseek": (
        "<｜begin▁of▁sentence｜>Be short.<｜User｜>Hi<｜Assistant｜>Hello there<｜end▁of▁sentence｜>"
        "<｜User｜>What is the capital of France?<｜Assistant｜>Paris<｜end▁of▁sentence｜>"
    ),
}
PUBLISHED["qwen"] = PUBLISHED["chatml"]

TRIMS = {"llama3", "llama2", "gemma"}  # these strip what is said


def row(*messages: Message) -> Row:
    return Row("1", "t.jsonl:1", messages)


def trained(renderer: Renderer, encoded: Encoded) -> list[str]:
    """Return the text of each run of trained tokens."""
    edges = np.flatnonzero(np.diff(encoded.target_T)) + 1
    runs = np.split(np.arange(len(encoded)), edges)
    return [renderer.tokens.decode(encoded.ids_T[run]) for run in runs if encoded.target_T[run[0]]]


def wanted(name: str, text: str) -> str:
    family = FAMILIES[name]
    gap = " " if name == "llama2" else ""
    return family.lead + (text.strip() if name in TRIMS else text) + gap + family.end


def test_renders_exactly_the_published_format(family_name: str) -> None:
    renderer = make_renderer(family_name)
    assert renderer.render(TALK) == PUBLISHED[family_name]
    assert renderer.tokens.decode(renderer.encode_row(row(*TALK)).ids_T) == PUBLISHED[family_name]


def test_trains_answers_and_end_tokens_alone(family_name: str) -> None:
    renderer = make_renderer(family_name)
    encoded = renderer.encode_row(row(*TALK))
    assert trained(renderer, encoded) == [wanted(family_name, "Hello there"), wanted(family_name, "Paris")]
    assert renderer.end_token == FAMILIES[family_name].end
    assert int(encoded.ids_T[encoded.target_T][-1]) in renderer.end_ids
    last = renderer.encode_row(row(*TALK), train="last")
    assert trained(renderer, last) == [wanted(family_name, "Paris")]
    assert np.array_equal(last.ids_T, encoded.ids_T)


def test_ordinary_rows_are_tokenised_as_the_whole_text_is(family_name: str) -> None:
    renderer = make_renderer(family_name)
    whole = renderer.tokenizer(renderer.render(TALK), add_special_tokens=False).input_ids
    assert renderer.encode_row(row(*TALK)).ids_T.tolist() == whole


def test_what_generation_feeds_is_what_training_saw(family_name: str) -> None:
    renderer = make_renderer(family_name)
    encoded = renderer.encode_row(row(*TALK))
    prompt = renderer.encode_prompt(TALK[:-1])
    assert encoded.ids_T[: len(prompt)].tolist() == prompt
    assert encoded.target_T[len(prompt)] and not encoded.target_T[len(prompt) - 1]


def test_special_tokens_in_text_stay_text(family_name: str) -> None:
    renderer = make_renderer(family_name)
    family = FAMILIES[family_name]
    said = f"what does {family.end} mean, and {family.specials[0]}{family.specials[1]}?"
    answer = f"{family.end} ends a turn {family.end}!"
    encoded = renderer.encode_row(row(Message("user", said), Message("assistant", answer)))
    clean = renderer.encode_row(row(Message("user", "x"), Message("assistant", "y")))
    controls = set(renderer.tokens.controls.values())
    assert [i for i in encoded.ids_T.tolist() if i in controls] == [i for i in clean.ids_T.tolist() if i in controls]
    assert trained(renderer, encoded) == [wanted(family_name, answer)]
    assert said in renderer.tokens.decode(encoded.ids_T)
    prompt = renderer.encode_prompt([Message("user", said)])
    assert encoded.ids_T[: len(prompt)].tolist() == prompt


contents = st.text(
    st.sampled_from("ab Z.\n\t{}<|>é日🙂") | st.characters(codec="utf-8", exclude_characters="\x00"),
    min_size=1,
    max_size=24,
).filter(str.strip)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(FAMILIES)),
    turns=st.lists(st.tuples(contents, contents), min_size=1, max_size=4),
    system=st.none() | contents,
)
def test_mask_of_any_conversation(name: str, turns: list[tuple[str, str]], system: str | None) -> None:
    renderer = make_renderer(name)
    messages = [Message("system", system)] if system else []
    for said, answer in turns:
        messages += [Message("user", said), Message("assistant", answer)]
    encoded = renderer.encode_row(row(*messages))
    found = trained(renderer, encoded)
    assert "".join(found) == "".join(wanted(name, answer) for _, answer in turns)
    if name != "deepseek":  # there, an empty turn could stand between two answers
        assert len(found) == len(turns)
    assert renderer.tokens.decode(encoded.ids_T) == renderer.render(messages)
    prompt = renderer.encode_prompt(messages[:-1])
    assert encoded.ids_T[: len(prompt)].tolist() == prompt


def test_dropped_thoughts_of_earlier_answers_are_not_trained() -> None:
    talk = (
        Message("user", "2+2?"),
        Message("assistant", "<think>easy</think>\n\n4"),
        Message("user", "3+3?"),
        Message("assistant", "<think>also</think>\n\n6"),
    )
    assert trained(make_renderer("qwen"), make_renderer("qwen").encode_row(row(*talk))) == [
        "4<|im_end|>",
        "<think>also</think>\n\n6<|im_end|>",
    ]
    end = FAMILIES["deepseek"].end
    assert trained(make_renderer("deepseek"), make_renderer("deepseek").encode_row(row(*talk))) == [
        f"\n\n4{end}",
        f"<think>also</think>\n\n6{end}",
    ]


def test_pad_equal_to_eos_still_trains_the_end_token() -> None:
    tokenizer = make_tokenizer(CHATML)
    tokenizer.pad_token = tokenizer.eos_token
    renderer = Renderer(tokenizer)
    encoded = renderer.encode_row(row(*TALK))
    assert int(encoded.ids_T[encoded.target_T][-1]) == tokenizer.eos_token_id


@pytest.mark.parametrize("style", ["metaspace", "prepend"])
@pytest.mark.parametrize("family", [LLAMA2, ZEPHYR])
def test_tokenizers_that_put_a_space_before_a_text(style: str, family: Family) -> None:
    renderer = Renderer(make_sentencepiece(family, style))
    encoded = renderer.encode_row(row(*TALK))
    whole = renderer.tokenizer(renderer.render(TALK), add_special_tokens=False).input_ids
    assert encoded.ids_T.tolist() == whole
    found = [text.replace(" ", "") for text in trained(renderer, encoded)]
    assert found == ["Hellothere</s>", "Paris</s>"]
    asked = [Message("user", "what is </s> for?")]
    ids = renderer.encode_prompt(asked)
    other = renderer.encode_prompt([Message("user", "what is xyz for?")])
    assert ids.count(renderer.tokens.eos_id) == other.count(renderer.tokens.eos_id)
    assert ids[:6] == other[:6] and ids[-5:] == other[-5:]
    assert "what is </s> for?" in renderer.tokens.decode(ids)


def test_special_tokens_that_swallow_white_space() -> None:
    renderer = Renderer(make_tokenizer(PHI3, rstrip=True))
    encoded = renderer.encode_row(row(*TALK))
    whole = renderer.tokenizer(renderer.render(TALK), add_special_tokens=False).input_ids
    assert encoded.ids_T.tolist() == whole
    assert trained(renderer, encoded) == ["Hello there<|end|>", "Paris<|end|>"]


def test_a_template_without_end_token_is_known() -> None:
    source = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    renderer = Renderer(make_tokenizer(CHATML), chat_template=source + "{{ 'assistant:' if add_generation_prompt }}")
    assert renderer.end_token is None
    assert trained(renderer, renderer.encode_row(row(*TALK))) == [" Hello there", " Paris"]


def test_a_template_that_ignores_the_generation_prompt_gets_its_header() -> None:
    source = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    renderer = Renderer(make_tokenizer(CHATML), chat_template=source)
    assert renderer.render(TALK[:2], add_generation_prompt=True).endswith("<|im_start|>assistant\n")
    assert trained(renderer, renderer.encode_row(row(*TALK))) == ["Hello there<|im_end|>", "Paris<|im_end|>"]


def test_a_template_that_changes_answers_is_refused_row_by_row() -> None:
    source = CHATML.template.replace("m['content']", "m['content'] | replace('P', 'B')")
    renderer = Renderer(make_tokenizer(CHATML), chat_template=source)
    renderer.encode_row(row(Message("user", "x"), Message("assistant", "y")))
    with pytest.raises(RowRefused, match=r"t\.jsonl:1: an answer cannot be found") as refusal:
        renderer.encode_row(row(*TALK))
    assert refusal.value.kind == "mask_mismatch"


def test_a_dropped_system_text_is_told_and_put_into_the_first_turn() -> None:
    source = CHATML.template.replace("for m in messages", "for m in messages if m.role != 'system'")
    for renderer in (Renderer(make_tokenizer(CHATML), chat_template=source), make_renderer("gemma")):
        assert any("no system role" in warning for warning in renderer.warnings)
        assert "user\nBe short.\n\nHi" in renderer.render(TALK)
    assert not make_renderer("chatml").warnings


def test_a_double_beginning_is_told() -> None:
    renderer = Renderer(
        make_tokenizer(GEMMA), chat_template=GEMMA.template.replace("bos_token", "bos_token + bos_token")
    )
    assert any("twice" in warning for warning in renderer.warnings)


def test_a_conversation_that_the_template_refuses() -> None:
    talk = row(Message("user", "a"), Message("user", "b"), Message("assistant", "c"))
    with pytest.raises(RowRefused, match="must alternate") as refusal:
        Renderer(make_tokenizer(LLAMA2)).encode_row(talk)
    assert refusal.value.kind == "template_refused"


def test_templates_that_leave_out_what_was_said_are_refused() -> None:
    with pytest.raises(BadInput, match="leaves out"):
        Renderer(make_tokenizer(CHATML), chat_template="{{ messages[0].content }}")


def test_a_base_model_gets_plain_text_that_ends() -> None:
    tokenizer = make_tokenizer(CHATML)
    tokenizer.chat_template = None
    renderer = Renderer(tokenizer)
    assert renderer.template == "plain text" and renderer.chat_template == PLAIN
    assert renderer.render(TALK[:3]) == "Be short.\n\nUser: Hi\nAssistant: Hello there<|im_end|>\n"
    assert trained(renderer, renderer.encode_row(row(*TALK))) == [" Hello there<|im_end|>", " Paris<|im_end|>"]


def test_raw_text_trains_everything_but_the_first_token() -> None:
    renderer = make_renderer("chatml")
    encoded = renderer.encode_row(Row("1", "t:1", text="The end <|im_end|> is text."))
    assert renderer.tokens.decode(encoded.ids_T) == "The end <|im_end|> is text.<|im_end|>"
    assert not encoded.target_T[0] and encoded.target_T[1:].all()
    assert (encoded.ids_T == renderer.tokens.eos_id).sum() == 1


def test_a_prompt_must_ask() -> None:
    with pytest.raises(BadInput, match="must end with a user"):
        make_renderer("chatml").encode_prompt(TALK)


def test_the_key_tells_templates_apart() -> None:
    keys = {make_renderer(name).key for name in FAMILIES}
    assert len(keys) == len(FAMILIES)
    assert Renderer(make_tokenizer(CHATML)).key == make_renderer("chatml").key


@pytest.mark.model
def test_the_real_tokenizer_agrees_with_transformers() -> None:
    from luthier.models.find import find_model
    from luthier.models.load import load_tokenizer

    tokenizer = load_tokenizer(find_model("smollm2-135m-instruct"))
    renderer = Renderer(tokenizer)
    dicts = [{"role": m.role, "content": m.content} for m in TALK]
    assert renderer.encode_row(row(*TALK)).ids_T.tolist() == tokenizer.apply_chat_template(dicts, return_dict=False)
    prompt = tokenizer.apply_chat_template(dicts[:-1], add_generation_prompt=True, return_dict=False)
    assert renderer.encode_prompt(TALK[:-1]) == prompt
    assert trained(renderer, renderer.encode_row(row(*TALK))) == ["Hello there<|im_end|>", "Paris<|im_end|>"]
    assert renderer.warnings == []
