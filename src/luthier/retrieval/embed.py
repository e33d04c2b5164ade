"""The embedder that runs a sentence-embedding model from a local folder.

Mean pooling over the tokens, then unit length, as in Sentence-BERT (Reimers & Gurevych 2019), so that a dot product is
the cosine. Finding or fetching the folder is not done here; only safetensors are read.

    >>> SentenceEmbedder(Path("minilm"))(["a bicycle", "a bike"]).shape  # doctest: +SKIP
    (2, 384)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from luthier.ground.errors import BadInput
from luthier.ground.hashes import sha256_file, sha256_text
from luthier.models.folder import check_folder
from luthier.models.hub import hub_cache
from luthier.models.quiet import no_progress_bars
from luthier.retrieval.vectors import Embedder as Embedder
from luthier.retrieval.vectors import FloatArray


class SentenceEmbedder:
    """Mean-pooled sentence embeddings of a model folder (`config.json`, tokenizer, `model.safetensors`).

    Args:
        folder: the model's folder.
        name: what people call the model (default: the folder's name); the weights' hash is added to it.
        max_tokens: longer texts are cut there; `n_cut` counts them.

    Raises:
        BadInput: the folder is not a usable model, or its weights do not fill the model.
        Refused: it would need a pickle or code of its own.
    """

    def __init__(self, folder: Path, *, name: str | None = None, max_tokens: int = 256, batch_size: int = 32) -> None:
        if not folder.is_dir():
            raise BadInput("there is no such folder", where=str(folder), fix="name the folder of an embedding model")
        weights = check_folder(folder, links_into=hub_cache())
        self._tokenizer, self._model = _load(folder)
        self._max_tokens = min(max_tokens, int(self._model.config.max_position_embeddings))
        self._batch_size = batch_size
        self.name = f"{name or folder.name}@{sha256_text(''.join(map(sha256_file, weights)))[:12]}"
        self.dim = int(self._model.config.hidden_size)
        self.n_cut = 0

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        ids = self._encode(texts)
        vectors_ND = np.zeros((len(texts), self.dim), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda index: len(ids[index]))  # little padding
        for first in range(0, len(order), self._batch_size):
            batch = order[first : first + self._batch_size]
            vectors_ND[batch] = self._embed([ids[index] for index in batch])
        return vectors_ND

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        clean = [text.encode(errors="replace").decode() for text in texts]  # lone surrogates
        encoded = self._ids(clean, truncation=True, max_length=self._max_tokens)
        full = [text for text, ids in zip(clean, encoded, strict=True) if len(ids) == self._max_tokens]
        self.n_cut += sum(len(ids) > self._max_tokens for ids in self._ids(full, verbose=False)) if full else 0
        return encoded

    def _ids(self, texts: list[str], **options: Any) -> list[list[int]]:
        # A text that spells a special token, such as "[SEP]", is text.
        ids: list[list[int]] = self._tokenizer(texts, split_special_tokens=True, **options)["input_ids"]
        return ids

    @torch.inference_mode()
    def _embed(self, batch: list[list[int]]) -> FloatArray:
        longest = max(map(len, batch))
        pad = self._tokenizer.pad_token_id or 0
        ids_BT = torch.tensor([ids + [pad] * (longest - len(ids)) for ids in batch])
        mask_BT = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in batch])
        hidden_BTD = self._model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        mask_BT1 = mask_BT.unsqueeze(-1).to(hidden_BTD.dtype)
        mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean_BD, dim=1).numpy().astype(np.float32)


def _load(folder: Path) -> tuple[Any, Any]:
    try:
        with no_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            model, found = AutoModel.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise BadInput(f"not loadable as an embedding model ({reason})", where=str(folder)) from error
    missing = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))  # unused by mean pooling
    if missing:
        raise BadInput(f"{len(missing)} weights are missing, such as {missing[0]}", where=str(folder))
    return tokenizer, model.eval()
