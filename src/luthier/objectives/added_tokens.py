"""A renderer that knows more tokens than the base model, together with what puts them into the model.

renderer, extension = with_tokens(renderer, ["<gap>"], special=True)
renderer, extension = with_tokens(renderer, word_forms(renderer, ["tricresal"]))
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from tokenizers import AddedToken

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec
from luthier.models.vocabulary import Init, VocabularyExtension, spells_back
from luthier.rows.template import Renderer


def with_tokens(
    renderer: Renderer,
    tokens: Sequence[str],
    *,
    init: Init = "subwords",
    special: bool = False,
    resized: bool = False,
) -> tuple[Renderer, VocabularyExtension]:
    """Return a renderer over a copy of the tokenizer that has `tokens` too, and the extension for the model.

    Args:
        tokens: exactly as they stand in text; those that the tokenizer has already are passed over.
        init, special, resized: as for `VocabularyExtension`; `resized` where the adapter kind trains every weight.

    Raises:
        BadInput: the tokenizer has all of them already, or cannot write one back.
    """
    extension = VocabularyExtension(renderer.tokenizer, tokens, init, special=special, resized=resized)
    return renderer.with_tokenizer(extension.tokenizer), extension


def extended_by(
    renderer: Renderer, words: Sequence[str], train: TrainSpec
) -> tuple[Renderer, tuple[VocabularyExtension, ...]]:
    """Return the renderer and the extension for a task's new words; nothing changes if it has none.

    Raises:
        BadInput: the tokenizer has all of them, or cannot write one back; or the model does not only decode.
    """
    if not words:
        return renderer, ()
    if type(renderer) is not Renderer:
        raise BadInput(
            "new words are for models that only decode", where="train.vocabulary", fix="leave train.vocabulary out"
        )
    longer, extension = with_tokens(
        renderer,
        word_forms(renderer, words),
        init=train.vocabulary.init,
        resized=train.adapter.kind == "full",
    )
    return longer, (extension,)


def word_forms(renderer: Renderer, words: Sequence[str]) -> list[str]:
    """Return the tokens for words: each as it stands at the beginning of a line, and with the space before it.

    A tokenizer that keeps the space before a word in the word's token would otherwise need two tokens for it. A form
    that the tokenizer cannot write back is left out if the other one can be.
    """
    spaced = len(renderer.tokenizer.encode("a a", add_special_tokens=False)) == 2
    forms: list[str] = []
    for word in dict.fromkeys(words):
        both = [word, f" {word}"] if spaced and word[:1].isalnum() else [word]
        kept = [form for form in both if _is_spelled(renderer, form)]
        forms += kept or both
    return forms


def _is_spelled(renderer: Renderer, form: str) -> bool:
    trial = copy.deepcopy(renderer.tokenizer)
    trial.add_tokens([AddedToken(form, normalized=False)])
    return spells_back(trial, form)
