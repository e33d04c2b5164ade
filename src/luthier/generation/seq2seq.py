"""Batched decoding with encoder-decoder models: the source is read once, the answer written token by token.

Everything but the session is the engine's: batches sorted by the sources' length, sampling, stop strings, rows that
leave when they are finished. A prompt is what the encoder reads. Beam search is not here.

    answers = generator_for(model, tokenizer, renderer.end_ids).generate([renderer.encode_prompt(messages)], Settings())
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from luthier.generation.engine import Generator
from luthier.generation.sessions import PlainPrefix, Session
from luthier.generation.settings import Settings
from luthier.generation.slots import Shared
from luthier.models.architecture import architecture_of
from luthier.models.seq2seq import start_ids


def generator_for(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end_ids: Iterable[int]) -> Generator:
    """Return what writes answers with a model: a decoder, or an encoder-decoder."""
    kind = Seq2SeqGenerator if architecture_of(model.config) == "encoder-decoder" else Generator
    return kind(model, tokenizer, end_ids)


class Seq2SeqGenerator(Generator):
    """Writes answers with one encoder-decoder model.

    The decoder begins with its start token, and with the token that the model's generation settings force upon its
    beginning, if they name one.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end_ids: Iterable[int]) -> None:
        super().__init__(model, tokenizer, end_ids, share=False)
        self._full_attention = False  # sources that begin alike are read apart: an encoder sees all of each
        forced = getattr(model.generation_config, "forced_bos_token_id", None)
        self.start_ids = (*start_ids(model.config), *([] if forced is None else [int(forced)]))
        self.row_token_bytes *= 2  # keys and values of both sides

    def _unanswerable(self, prompt: Sequence[int]) -> str | None:
        if prompt and self.context is not None and len(prompt) == self.context:
            return None  # the answer has positions of its own
        return super()._unanswerable(prompt)

    def _limit(self, prompt_tokens: int, settings: Settings) -> int:  # noqa: ARG002  # the answer's own positions
        return super()._limit(len(self.start_ids) - 1, settings)

    def _open(
        self, prefix: Shared | PlainPrefix | None, own: list[Sequence[int]], new_tokens: int  # noqa: ARG002
    ) -> tuple[Session, Tensor]:  # fmt: skip
        session = Seq2SeqSession(self.model, own, self.start_ids)
        return session, session.prefill()


class Seq2SeqSession:
    """One batch: what the encoder made of the sources, and the decoder's keys and values so far."""

    def __init__(self, model: PreTrainedModel, sources: Sequence[Sequence[int]], start: Sequence[int]) -> None:
        self.model = model
        self.cache = EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))
        longest, device = max(map(len, sources)), model.device
        ids_BS = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in sources], device=device)
        lengths_B1 = torch.tensor([[len(ids)] for ids in sources], device=device)
        self.mask_BS = (torch.arange(longest, device=device) < lengths_B1).long()
        self.read_BSD: Tensor = model.get_encoder()(input_ids=ids_BS, attention_mask=self.mask_BS).last_hidden_state
        self.start_BT = torch.tensor([list(start)] * len(sources), device=device)

    def prefill(self) -> Tensor:
        """Return the scores of each row's first token, [B, V]."""
        return self._forward(self.start_BT)

    def step(self, ids_B: Tensor) -> Tensor:
        """Append one token to each row and return the scores of the next, [B, V]."""
        return self._forward(ids_B.unsqueeze(1))

    def select(self, order: Sequence[int]) -> None:
        """Let row `j` be what row `order[j]` was; the others leave."""
        index = torch.tensor(list(order), device=self.model.device)
        self.cache.batch_select_indices(index)
        self.mask_BS, self.read_BSD = self.mask_BS[index], self.read_BSD[index]

    def _forward(self, ids_BT: Tensor) -> Tensor:
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.read_BSD),
            attention_mask=self.mask_BS,
            decoder_input_ids=ids_BT,
            past_key_values=self.cache,
            use_cache=True,
        )
        logits_BTV: Tensor = output.logits
        return logits_BTV[:, -1]
