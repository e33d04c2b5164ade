"""Which of three kinds a model is: a decoder, an encoder-decoder, or an encoder alone.

>>> from transformers import LlamaConfig, T5Config, BertConfig
>>> [architecture_of(config) for config in (LlamaConfig(), T5Config(), BertConfig())]
['decoder', 'encoder-decoder', 'encoder']
"""

from __future__ import annotations

from typing import Any, Literal

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
)

Architecture = Literal["decoder", "encoder-decoder", "encoder"]
LIBRARY: dict[Architecture, Any] = {
    "decoder": AutoModelForCausalLM,
    "encoder-decoder": AutoModelForSeq2SeqLM,
    "encoder": AutoModel,
}


def architecture_of(config: PretrainedConfig) -> Architecture:
    """Return the kind of model that a config describes; one that is both (BERT) is what its files say that it is."""
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    named = " ".join(getattr(config, "architectures", None) or ())
    speaks = "CausalLM" in named or "LMHead" in named
    masks = "MaskedLM" in named or config.model_type in _ENCODERS
    is_decoder = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and (speaks or not masks)
    return "decoder" if is_decoder or getattr(config, "is_decoder", False) else "encoder"


# model types that have a causal class in the library but are, as they are used, encoders
_ENCODERS = frozenset({
    "albert", "bert", "bert-generation", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2",
    "distilbert", "electra", "ernie", "megatron-bert", "modernbert", "mpnet", "nomic_bert", "rembert", "roberta",
    "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip
