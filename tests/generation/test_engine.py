"""The engine against transformers' own `generate`, and against itself with other batches, prefixes and ways."""

from __future__ import annotations

import random

import pytest
import torch
from generation_models import CONTEXT, VOCABULARY, Words, build, reference_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.generation.engine import Generator, _leave, common_beginning
from luthier.generation.sampling import choose, uniform_numbers
from luthier.generation.sessions import PlainSession, Session, SlotSession, read_plain_prefix, read_prefix
from luthier.generation.settings import Settings
from luthier.generation.slots import SlotCache, shared_attention
from luthier.models.find import find_model
from luthier.models.load import load_model
from luthier.models.packed import install_packed_attention

ENDS = {5, 7, 11}


def make_prompts(count: int, prefix: int, seed: int = 0, most: int = 30) -> list[list[int]]:
    draw = random.Random(seed)
    shared = [draw.randrange(VOCABULARY) for _ in range(prefix)]
    return [shared + [draw.randrange(VOCABULARY) for _ in range(draw.randrange(1, most))] for _ in range(count)]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "mistral-window"])
def test_greedy_equals_transformers(family: str, share: bool) -> None:
    model = build(family)
    prompts = make_prompts(9, prefix=40)
    expected = [reference_ids(model, prompt, 16, ENDS) for prompt in prompts]
    assert len({len(ids) for ids in expected}) > 1, "some answers must end early for this test to test anything"
    generator = Generator(model, Words(), ENDS, share=share)
    answers = generator.generate(prompts, Settings(max_new_tokens=16, batch_size=4))
    assert [answer.ids for answer in answers] == expected
    assert generator.share is (share and family != "mistral-window")
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.prompt_tokens == len(prompt)
        assert answer.finish == ("end" if len(answer.ids) < 16 else "length")
        assert answer.output_tokens == len(answer.ids) + (answer.finish == "end")
        assert answer.seconds > 0


def test_greedy_equals_transformers_without_a_shared_prefix() -> None:
    model = build("llama", seed=1)
    prompts = make_prompts(7, prefix=0, seed=1)
    answers = Generator(model, Words(), ENDS).generate(prompts, Settings(max_new_tokens=12, batch_size=7))
    assert [answer.ids for answer in answers] == [reference_ids(model, prompt, 12, ENDS) for prompt in prompts]


def test_the_attention_of_loaded_models_takes_the_fast_way() -> None:
    model = build("llama")
    prompts = make_prompts(4, prefix=20)
    plain = Generator(model, Words(), ENDS).generate(prompts, Settings(max_new_tokens=8))
    install_packed_attention(model)
    generator = Generator(model, Words(), ENDS)
    assert generator.share
    assert [a.ids for a in generator.generate(prompts, Settings(max_new_tokens=8))] == [a.ids for a in plain]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batch_mates_change_nothing(batch_size: int) -> None:
    model = build("llama", seed=2)
    prompts = make_prompts(8, prefix=24, seed=2)
    for temperature in (0.0, 1.0):
        together = Generator(model, Words(), ENDS).generate(
            prompts, Settings(max_new_tokens=12, temperature=temperature, seed=3)
        )
        apart = Generator(model, Words(), ENDS).generate(
            prompts, Settings(max_new_tokens=12, temperature=temperature, seed=3, batch_size=batch_size)
        )
        assert [a.ids for a in apart] == [a.ids for a in together]


def test_sampling_follows_the_seed_and_the_row() -> None:
    model = build("llama", seed=2)
    prompts = [make_prompts(1, prefix=10)[0]] * 6
    drawn = [
        [a.ids for a in Generator(model, Words(), ()).generate(prompts, Settings(8, temperature=1.5, seed=seed))]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 6, "rows with one prompt must draw different answers"


def test_sampling_equals_a_plain_loop() -> None:
    model = build("llama", seed=2)
    prompts = make_prompts(3, prefix=10)
    how = Settings(max_new_tokens=6, temperature=0.9, top_p=0.95, seed=4)
    uniform_RS = uniform_numbers(4, range(3), 6)
    expected = []
    for row, prompt in enumerate(prompts):
        ids = list(prompt)
        for step in range(6):
            with torch.inference_mode():
                logits_1V = model(torch.tensor([ids])).logits[:, -1]
            ids.append(int(choose(logits_1V, how, uniform_RS[row : row + 1, step])))
        expected.append(tuple(ids[len(prompt) :]))
    assert [answer.ids for answer in Generator(model, Words(), ()).generate(prompts, how)] == expected


def test_prefix_is_computed_once_per_call_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    import luthier.generation.engine as engine

    read: list[int] = []
    original = engine.read_prefix
    monkeypatch.setattr(engine, "read_prefix", lambda model, ids: (read.append(len(ids)), original(model, ids))[1])
    generator = Generator(build("llama"), Words(), ENDS)
    prompts = make_prompts(9, prefix=40)
    generator.generate(prompts, Settings(max_new_tokens=2, batch_size=3))
    assert read == [common_beginning(prompts)]
    generator.generate(prompts, Settings(max_new_tokens=2, batch_size=3))
    assert len(read) == 2, "nothing may be kept from call to call: the adapter may have changed"


def test_weights_changed_between_calls_are_seen() -> None:
    model = build("llama")
    generator = Generator(model, Words(), ENDS)
    prompts = make_prompts(3, prefix=40)
    before = [a.ids for a in generator.generate(prompts, Settings(max_new_tokens=8))]
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight.mul_(-1)
    after = [a.ids for a in generator.generate(prompts, Settings(max_new_tokens=8))]
    assert after == [reference_ids(model, prompt, 8, ENDS) for prompt in prompts] != before


@pytest.mark.parametrize("prefix", [0, 25])
def test_chunks_blocks_and_a_growing_cache_change_nothing(prefix: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import luthier.generation.sessions as sessions
    import luthier.generation.slots as slots

    model = build("llama")
    prompts = make_prompts(5, prefix=prefix, seed=4, most=60)
    whole = Generator(model, Words(), ()).generate(prompts, Settings(max_new_tokens=20))
    monkeypatch.setattr(sessions, "CHUNK_TOKENS", 35)
    monkeypatch.setattr(sessions, "ROW_TOKENS", 1)
    monkeypatch.setattr(sessions, "FIRST_ROOM", 1)
    monkeypatch.setattr(slots, "BLOCK_BYTES", 1)
    chunked = Generator(model, Words(), ()).generate(prompts, Settings(max_new_tokens=20))
    assert [a.ids for a in chunked] == [a.ids for a in whole]


def test_memory_bound_makes_batches_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    import luthier.generation.engine as engine

    generator = Generator(build("llama"), Words(), ENDS)
    monkeypatch.setattr(engine, "CACHE_BYTES", 60 * generator.row_token_bytes)
    told: list[int] = []
    answers = generator.generate(
        make_prompts(4, prefix=0, most=10), Settings(max_new_tokens=15), lambda event: told.append(event["done"])
    )
    assert len(answers) == 4 and len(told) >= 2 and told[-1] == 4


def test_a_prompt_that_does_not_fit_fails_alone() -> None:
    prompts = [[1, 2, 3], [4] * CONTEXT, [], [1] * (CONTEXT - 2)]
    answers = Generator(build("llama"), Words(), ()).generate(prompts, Settings(max_new_tokens=5))
    assert [a.finish for a in answers] == ["length", "failed", "failed", "length"]
    assert answers[1].cause == f"the prompt has {CONTEXT} tokens and the model's context holds {CONTEXT}"
    assert answers[2].cause == "the prompt is empty" and answers[2].text is None
    assert len(answers[3].ids) == 2, "the context holds two more tokens"


def test_nothing_to_do() -> None:
    assert Generator(build("llama"), Words(), ()).generate([], Settings()) == []


def test_scores_that_are_not_numbers_fail_the_row() -> None:
    model = build("llama")
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    answers = Generator(model, Words(), ENDS).generate([[1, 2]], Settings(max_new_tokens=3))
    assert answers[0].finish == "failed" and answers[0].cause == "the model's scores are not finite numbers"


def test_stop_strings_end_an_answer_and_are_cut() -> None:
    model = build("llama")
    prompt = make_prompts(1, prefix=12)[0]
    free = Generator(model, Words(), ()).generate([prompt], Settings(max_new_tokens=12))[0]
    place = next(place for place in range(2, 11) if free.ids[place] not in free.ids[:place])
    stop = f"w{free.ids[place]} "  # complete only when the next token is there
    answer = Generator(model, Words(), ()).generate([prompt], Settings(max_new_tokens=12, stop=("zzz", stop)))[0]
    assert answer.finish == "stop"
    assert answer.text == Words().decode(list(free.ids[:place])) + " "
    assert answer.output_tokens == place + 2


def test_the_model_is_put_back_as_it_was() -> None:
    model = build("llama")
    model.train()
    model.model.norm.eval()
    before = model.config._attn_implementation
    Generator(model, Words(), ()).generate([[1, 2, 3]], Settings(max_new_tokens=2))
    assert model.training and not model.model.norm.training
    assert model.config._attn_implementation == before
    with pytest.raises(ZeroDivisionError), shared_attention(model, SlotCache(3)):
        raise ZeroDivisionError
    assert model.config._attn_implementation == before


def test_a_model_with_soft_caps_takes_the_plain_way() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, attn_logit_softcapping=5.0, bos_token_id=1, eos_token_id=1, pad_token_id=0,
        layer_types=["full_attention", "full_attention"], max_position_embeddings=CONTEXT,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    install_packed_attention(model)
    prompts = make_prompts(4, prefix=30)
    expected = [reference_ids(model, prompt, 8, ENDS) for prompt in prompts]
    for batch in (prompts, prompts[:1]):
        generator = Generator(model, Words(), ENDS)
        assert [a.ids for a in generator.generate(batch, Settings(max_new_tokens=8))] == expected[: len(batch)]
        assert not generator.share


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), max_size=12))
def test_leaving_keeps_exactly_the_rows_that_stay(stays: list[bool]) -> None:
    order = _leave(stays)
    assert sorted(order) == [place for place, stay in enumerate(stays) if stay]
    assert all(old >= new for new, old in enumerate(order)), "a row may only move to the front"


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5))
def test_common_beginning(prompts: list[list[int]]) -> None:
    length = common_beginning(prompts)
    assert all(prompt[:length] == prompts[0][:length] and len(prompt) > length for prompt in prompts)
    longer = {tuple(prompt[: length + 1]) for prompt in prompts}
    assert len(longer) > 1 or min(map(len, prompts)) == length + 1


@pytest.mark.parametrize("share", [True, False])
def test_the_output_head_gets_only_the_last_position_and_no_slice(share: bool) -> None:
    """A slice would make torch copy the head's weight once per row."""
    model = build("llama")
    seen: list[torch.Tensor] = []
    model.lm_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    Generator(model, Words(), (), share=share).generate(make_prompts(4, prefix=20), Settings(max_new_tokens=3))
    assert len(seen) == 4 and [tuple(hidden.shape[:2]) for hidden in seen] == [(1, 1), (4, 1), (4, 1), (4, 1)]
    assert all(hidden.is_contiguous() for hidden in seen)


def test_bfloat16_stays_close_to_float32() -> None:
    model = build("llama")
    prompts = make_prompts(6, prefix=30, seed=5)
    exact = first_scores(model, prompts)
    model.bfloat16()
    rounded, plain = first_scores(model, prompts), first_scores(model, prompts, share=False)
    spread = exact.std()
    assert (rounded - exact).abs().max() < 0.1 * spread
    assert (rounded - exact).abs().mean() < 1.5 * (plain - exact).abs().mean(), "no less exact than transformers' way"


def first_scores(model: torch.nn.Module, prompts: list[list[int]], *, share: bool = True) -> torch.Tensor:
    """Return the scores of each prompt's first new token, by the fast or the plain way, with a shared prefix."""
    length = common_beginning(prompts)
    own = [prompt[length:] for prompt in prompts]
    with torch.inference_mode():
        if share:
            session: Session = SlotSession(model, read_prefix(model, prompts[0][:length]), own, 4)
        else:
            session = PlainSession(model, read_plain_prefix(model, prompts[0][:length]), own)
        return session.prefill().float()


@pytest.mark.model
def test_the_real_model_writes_what_transformers_writes() -> None:
    loaded = load_model(find_model("smollm2-135m-instruct"), "fp32")
    tokenizer, end = loaded.tokenizer, int(loaded.tokenizer.eos_token_id)
    head = "<|im_start|>system\nAnswer in one short sentence.<|im_end|>\n<|im_start|>user\n"
    questions = ["What is the capital of France?", "Name a colour.", "Is water wet? Say why you think so."]
    prompts = [tokenizer(f"{head}{q}<|im_end|>\n<|im_start|>assistant\n")["input_ids"] for q in questions]
    answers = Generator(loaded.model, tokenizer, {end}).generate(prompts, Settings(max_new_tokens=24))
    assert [answer.ids for answer in answers] == [reference_ids(loaded.model, p, 24, {end}) for p in prompts]
    assert "Paris" in str(answers[0].text) and "<|" not in str(answers[0].text)


def test_latent_attention_answers_in_bfloat16_by_the_plain_way() -> None:
    """DeepSeek multiplies what its cache returns, so a cache of float32 would not do."""
    config = AutoConfig.for_model(
        "deepseek_v3", vocab_size=VOCABULARY, hidden_size=48, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, n_group=2, topk_group=1,
        num_experts_per_tok=2, moe_intermediate_size=32, kv_lora_rank=16, q_lora_rank=32, qk_nope_head_dim=16,
        qk_rope_head_dim=8, v_head_dim=16, first_k_dense_replace=1, max_position_embeddings=CONTEXT,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    install_packed_attention(model)
    generator = Generator(model, Words(), [])  # type: ignore[arg-type]
    assert not generator.share
    prompts = make_prompts(3, prefix=20)
    answers = generator.generate(prompts, Settings(max_new_tokens=5))
    assert [answer.finish for answer in answers] == ["length"] * 3
