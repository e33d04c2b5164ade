"""Answers of encoder-decoders: the tokens of transformers' own greedy search, whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from luthier.generation.engine import Generator
from luthier.generation.seq2seq import Seq2SeqGenerator, generator_for
from luthier.generation.settings import Settings
from models.seq2seq_models import SEQ2SEQ, seq2seq_tokenizer, tiny_seq2seq
from models.tiny_models import VOCABULARY, tiny_model

END = 2


def prompts(count: int = 7) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(3, VOCABULARY, random.integers(1, 14)).tolist() for _ in range(count)]


def by_transformers(model: PreTrainedModel, prompt: list[int], new: int) -> list[int]:
    start = model.config.decoder_start_token_id
    out = model.generate(
        torch.tensor([prompt]), max_new_tokens=new, do_sample=False, num_beams=1, eos_token_id=END,
        decoder_start_token_id=start,
    )  # fmt: skip
    forced = model.generation_config.forced_bos_token_id
    ids = out[0].tolist()[1 if forced is None else 2 :]
    return ids[: ids.index(END)] if END in ids else ids


@pytest.mark.parametrize("family", SEQ2SEQ)
@pytest.mark.parametrize("forced", [None, 5])
def test_greedy_answers_are_those_of_transformers(family: str, forced: int | None) -> None:
    model = tiny_seq2seq(family, seed=3)
    model.generation_config.forced_bos_token_id = forced
    generator = generator_for(model, seq2seq_tokenizer(), [END])
    answers = generator.generate(prompts(), Settings(max_new_tokens=12, batch_size=3))
    new = 12 if forced is None else 13
    assert [list(answer.ids) for answer in answers] == [by_transformers(model, prompt, new) for prompt in prompts()]
    assert [answer.prompt_tokens for answer in answers] == [len(prompt) for prompt in prompts()]
    lengths = {len(answer.ids) for answer in answers}
    assert len(lengths) > 1 or lengths == {12}


def test_rows_that_end_leave_and_change_nobody() -> None:
    model = tiny_seq2seq("t5", seed=3)
    free = generator_for(model, seq2seq_tokenizer(), []).generate(prompts(), Settings(max_new_tokens=12))
    ends = {answer.ids[5] for answer in free[:2]}  # tokens that some answers reach early
    generator = generator_for(model, seq2seq_tokenizer(), ends)
    for batch_size in (1, 7):
        answers = generator.generate(prompts(), Settings(max_new_tokens=12, batch_size=batch_size))
        for answer, whole in zip(answers, free, strict=True):
            cut = next((n for n, token in enumerate(whole.ids) if token in ends), 12)
            assert answer.ids == whole.ids[:cut]
            assert answer.finish == ("end" if cut < 12 else "length")


def test_sampled_answers_do_not_depend_on_the_batch() -> None:
    generator = generator_for(tiny_seq2seq("bart"), seq2seq_tokenizer(), [END])
    settings = [Settings(max_new_tokens=8, temperature=1.0, seed=1, batch_size=size) for size in (1, 4)]
    alone, together = (generator.generate(prompts(), one) for one in settings)
    assert [answer.ids for answer in alone] == [answer.ids for answer in together]


def test_learned_positions_bound_source_and_answer() -> None:
    generator = generator_for(tiny_seq2seq("bart"), seq2seq_tokenizer(), [])
    fits, longer, empty = generator.generate([[5] * 64, [5] * 65, []], Settings(max_new_tokens=100))
    assert fits.output_tokens == 64
    assert longer.cause == "the prompt has 65 tokens and the model's context holds 64"
    assert empty.cause == "the prompt is empty"


def test_each_kind_of_model_has_its_generator() -> None:
    assert isinstance(generator_for(tiny_seq2seq("t5"), seq2seq_tokenizer(), [END]), Seq2SeqGenerator)
    assert type(generator_for(tiny_model(), seq2seq_tokenizer(), [END])) is Generator
