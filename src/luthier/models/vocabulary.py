"""More tokens for a model: words of a domain, or marks that it has none for.

The tokenizer is copied and gets the tokens; the model gets a vector for each, in the input embedding and in the output
head (one vector for both, where they are tied). A new vector begins as the mean of those of the pieces that the token
was written with before (or of all tokens). Beside an adapter only these rows are trained, in float32, and are saved
with it; where every weight is trained (`resized`), the matrices themselves grow, and are saved as the model's. Rows of
an embedding that belong to no token (padding) are left out of the longer one. Which text needs which tokens is not
decided here.

    extension = VocabularyExtension(tokenizer, ["tricresal", " tricresal"])
    trained = extension.apply(model, seed=0)
"""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from luthier.ground.errors import BadInput
from luthier.models.folder import tensor_shapes
from luthier.models.widened import WidenedEmbedding, WidenedHead, parts_of, rows_of, vectors_of

Init = Literal["subwords", "mean"]
INPUT, OUTPUT = "input", "output"
_SAID = "luthier"  # the key of a file's metadata


@dataclass
class _Put:
    """What was put into one model, and the way back."""

    trained: dict[str, nn.Parameter] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)  # path -> what stood there
    vocabulary: int = 0  # of the config, before
    rest: dict[str, Tensor] = field(default_factory=dict)  # path -> rows of no token, which were left out


class VocabularyExtension:
    """New tokens, as an extension of a base model (`luthier.models.extension`).

    Args:
        tokenizer: of the model as it is; it is not changed.
        tokens: the new tokens, as they stand in text.
        init: what a new vector begins as.
        special: marks, which text that merely looks like them is never read as.
        resized: grow the model's own matrices, since every weight is trained.

    Attributes:
        tokenizer: a copy that knows the tokens.
        tokens: those that are new, in the order of their ids.
        first: the id of the first.

    Raises:
        BadInput: the tokenizer knows all of the tokens, or cannot spell one of them.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        tokens: Sequence[str],
        init: Init = "subwords",
        *,
        special: bool = False,
        resized: bool = False,
    ) -> None:
        known = tokenizer.get_vocab()
        self.tokens = tuple(token for token in dict.fromkeys(tokens) if token not in known)
        if not self.tokens:
            raise BadInput(
                "the tokenizer has all of these tokens already", where="train.vocabulary", fix="leave them out"
            )
        self._pieces = [tokenizer.encode(token, add_special_tokens=False) for token in self.tokens]
        self.tokenizer = _with(tokenizer, self.tokens, special)
        self.first = int(self.tokenizer.convert_tokens_to_ids(self.tokens[0]))
        self._init, self._resized, self._special = init, resized, special
        self._put: weakref.WeakKeyDictionary[nn.Module, _Put] = weakref.WeakKeyDictionary()

    @property
    def name(self) -> str:
        """What it is called; a second one on the same model has another first id."""
        return f"vocabulary-{self.first}"

    @property
    def rows(self) -> int:
        """Rows of the longer embedding."""
        return self.first + len(self.tokens)

    def apply(self, model: PreTrainedModel, *, seed: int) -> dict[str, nn.Parameter]:  # noqa: ARG002  # nothing is drawn
        """Put the tokens in; return their vectors, float32 (nothing if the model's own weights hold them)."""
        self._refuse(model)
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
        tied = head is not None and parts_of(head)[0] is parts_of(table)[0]
        new_AD = self._first_vectors(rows_of(table))
        of_head_AD = None if head is None or tied else self._first_vectors(rows_of(head))
        return self._insert(model, new_AD, of_head_AD)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write the vectors (unless they are among the model's weights), the tokens and the tokenizer."""
        tensors = {name: weight.detach().contiguous().cpu() for name, weight in self._state(model).trained.items()}
        said = json.dumps({"tokens": self.tokens, "special": self._special}, ensure_ascii=False)
        metadata = {_SAID: said}  # one key: several come in an order of chance
        save_file(tensors or {"none": torch.zeros(1)}, self._file(folder), metadata=metadata)
        self.tokenizer.save_pretrained(folder)

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        """Put the tokens in as they were saved; nothing is trained."""
        self._refuse(model)
        tensors = self._read(folder)
        if self._resized:
            self.apply(model, seed=0)  # the adapter kind reads the values, with all other weights
            return
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
        tied = head is None or parts_of(head)[0] is parts_of(table)[0]
        wanted = {INPUT} if tied else {INPUT, OUTPUT}
        shape = (len(self.tokens), parts_of(table)[0].shape[1])
        if tensors.keys() != wanted or any(value.shape != shape for value in tensors.values()):
            raise BadInput(
                "the vectors of the new tokens do not fit this model",
                where=str(self._file(folder)),
                fix="use the base model that they were made for",
            )
        for parameter in self._insert(model, tensors[INPUT], tensors.get(OUTPUT)).values():
            parameter.requires_grad_(False)

    def remove(self, model: PreTrainedModel) -> None:
        """Take the tokens out. Of a model whose own matrices grew, the other rows must be the base's again."""
        put = self._put.pop(model, None)
        if put is None:
            return
        for path, module in put.modules.items():
            model.set_submodule(path, module)
        shorter = {path: torch.cat([_weight(model, path)[: self.first], rest]) for path, rest in put.rest.items()}
        _resize(model, shorter)
        model.config.get_text_config().vocab_size = put.vocabulary

    # -- inside ----------------------------------------------------------------------------------------------------

    def _insert(self, model: PreTrainedModel, new_AD: Tensor, of_head_AD: Tensor | None) -> dict[str, nn.Parameter]:
        put = _Put(vocabulary=model.config.get_text_config().vocab_size)
        if self._resized:
            put.rest = self._grow(model, new_AD, of_head_AD)
        else:
            put.trained = _parameters(model, new_AD, of_head_AD)
            put.modules = self._widen(model, put.trained)
            model.config.get_text_config().vocab_size = self.rows
        self._put[model] = put
        return {f"{self.name}.{side}": vectors for side, vectors in put.trained.items()}

    def _widen(self, model: PreTrainedModel, trained: dict[str, nn.Parameter]) -> dict[str, nn.Module]:
        """Put modules with the new rows in the place of all that hold the embedding, and of the head."""
        weight, head = parts_of(model.get_input_embeddings())[0], model.get_output_embeddings()
        replaced: dict[str, nn.Module] = {}
        for path, module in list(model.named_modules(remove_duplicate=False)):
            if module is head:
                replaced[path] = module
                added = trained.get(OUTPUT, trained[INPUT])
                model.set_submodule(path, WidenedHead(module, added, self.first))
            elif _is_table(module, weight) and path.rsplit(".", 1)[-1] != "base":
                replaced[path] = module
                model.set_submodule(path, WidenedEmbedding(module, trained[INPUT], self.first))
        return replaced

    def _grow(self, model: PreTrainedModel, new_AD: Tensor, of_head_AD: Tensor | None) -> dict[str, Tensor]:
        """Let the matrices themselves have the new rows; return the rows that were left out, by path."""
        weight, head = model.get_input_embeddings().weight, model.get_output_embeddings()
        rest: dict[str, Tensor] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            if module is head or _is_table(module, weight):
                own = _weight(model, path)
                rest[path] = own[self.first :].detach().clone()
        grown = {
            path: torch.cat([_weight(model, path)[: self.first], _rows_for(path, model, new_AD, of_head_AD)])
            for path in rest
        }
        _resize(model, grown)
        model.config.get_text_config().vocab_size = self.rows
        return rest

    def _first_vectors(self, rows: Sequence[Tensor]) -> Tensor:
        """Return what the new vectors begin as, [A, D], float32."""
        width, device = rows[0].shape[1], rows[0].device
        if rows[0].is_meta:
            return torch.empty(len(self.tokens), width, dtype=torch.float32, device=device)
        if self._init == "mean":
            every = vectors_of(rows, torch.arange(self.first, device=device))
            return every.mean(0, keepdim=True).repeat(len(self.tokens), 1)
        pieces = [torch.tensor(ids, device=device) for ids in self._pieces]
        return torch.stack([vectors_of(rows, ids).mean(0) for ids in pieces])

    def _refuse(self, model: PreTrainedModel) -> None:
        if model in self._put:
            raise BadInput("the model has these tokens already", fix="remove them first")
        rows = sum(len(part) for part in parts_of(model.get_input_embeddings()))
        if rows < self.first:
            raise BadInput(
                f"the embedding has {rows:,} rows and the first new token would be number {self.first:,}",
                where="train.vocabulary",
                fix="use the model's own tokenizer",
            )

    def _state(self, model: PreTrainedModel) -> _Put:
        if model not in self._put:
            raise BadInput("the model has none of these tokens", fix="apply or load them first")
        return self._put[model]

    def _file(self, folder: Path) -> Path:
        return folder / f"{self.name}.safetensors"

    def _read(self, folder: Path) -> dict[str, Tensor]:
        """Return the saved vectors of these very tokens."""
        file = self._file(folder)
        if not file.is_file():
            raise BadInput(f"there is no {file.name} here, so the new tokens have no vectors", where=str(folder))
        tensor_shapes(file)  # refuses what is no sound file
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys() if name != "none"}  # noqa: SIM118
        if _said(file)[0] != self.tokens:
            raise BadInput("the vectors are those of other tokens", where=str(file), fix="name the same tokens")
        for name, value in tensors.items():
            if not torch.isfinite(value).all():
                raise BadInput(f"the tensor {name} holds NaN or infinity", where=str(file))
        return tensors


def saved_tokens(folder: Path) -> list[tuple[tuple[str, ...], bool]]:
    """Return the new tokens that lie in an adapter's folder, and whether they are marks, in the order of their ids.

    Raises:
        BadInput: a file is damaged.
    """
    files = folder.glob("vocabulary-*.safetensors")
    return [_said(file) for file in sorted(files, key=lambda file: int(file.stem.rpartition("-")[2]))]


def _said(file: Path) -> tuple[tuple[str, ...], bool]:
    """Return the tokens that a file holds the vectors of, and whether they are marks."""
    tensor_shapes(file)  # refuses what is no sound file
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata() or {}
    try:
        said = json.loads(metadata[_SAID])
        return tuple(said["tokens"]), bool(said["special"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"it does not say which tokens it holds ({error})", where=str(file), fix="train again") from None


def merge(model: PreTrainedModel, extensions: Sequence[VocabularyExtension]) -> None:
    """Make the vectors of new tokens rows of the model's own matrices, for good; it then saves as an ordinary model.

    Args:
        extensions: those that are in the model, in the order in which they came.
    """
    if not extensions:
        return
    *earlier, last = extensions
    if last._resized:
        merge(model, earlier)
        return
    values = {name: weight.detach() for name, weight in last._state(model).trained.items()}
    last.remove(model)
    merge(model, earlier)
    last._grow(model, values[INPUT], values.get(OUTPUT))


def _with(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str], special: bool) -> PreTrainedTokenizerFast:
    """Return a copy of the tokenizer that knows `tokens`, each of which it spells back."""
    longer: PreTrainedTokenizerFast = copy.deepcopy(tokenizer)
    added = longer.add_tokens([AddedToken(token, normalized=False, special=special) for token in tokens])
    ids = longer.convert_tokens_to_ids(list(tokens))
    if added != len(tokens) or ids != list(range(ids[0], ids[0] + len(tokens))):
        raise BadInput("the tokenizer does not take the tokens", where="train.vocabulary", fix="choose other tokens")
    for token in tokens:
        if not spells_back(longer, token):
            raise BadInput(
                f'this tokenizer cannot write "{token}" back as it stands in text',
                where="train.vocabulary",
                fix='leave the token out; with a space before it (" …") it may be possible',
            )
    return longer


def spells_back(tokenizer: PreTrainedTokenizerFast, token: str) -> bool:
    """Tell whether an added token decodes to itself."""
    backend: Any = tokenizer.backend_tokenizer
    token_id = tokenizer.convert_tokens_to_ids(token)
    return str(backend.decode([token_id, token_id], skip_special_tokens=False)).replace(" ", "") == (token * 2).replace(
        " ", ""
    )


def _parameters(model: PreTrainedModel, new_AD: Tensor, of_head_AD: Tensor | None) -> dict[str, nn.Parameter]:
    device = parts_of(model.get_input_embeddings())[0].device
    given = {INPUT: new_AD, **({} if of_head_AD is None else {OUTPUT: of_head_AD})}
    return {name: nn.Parameter(value.to(device, torch.float32)) for name, value in given.items()}


def _is_table(module: nn.Module, weight: Tensor) -> bool:
    return isinstance(module, nn.Embedding | WidenedEmbedding) and parts_of(module)[0] is weight


def _weight(model: PreTrainedModel, path: str) -> Tensor:
    weight = model.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _rows_for(path: str, model: PreTrainedModel, new_AD: Tensor, of_head_AD: Tensor | None) -> Tensor:
    """Return the new rows of the matrix at `path`, in its precision."""
    is_head = model.get_submodule(path) is model.get_output_embeddings()
    chosen = of_head_AD if is_head and of_head_AD is not None else new_AD
    own = _weight(model, path)
    return chosen.to(own.device, own.dtype)


def _resize(model: PreTrainedModel, matrices: dict[str, Tensor]) -> None:
    """Give modules longer or shorter matrices; those that shared one share the new one."""
    made: dict[int, nn.Parameter] = {}
    for path, matrix in matrices.items():
        module: Any = model.get_submodule(path)
        old = module.weight
        module.weight = made.setdefault(id(old), nn.Parameter(matrix, requires_grad=old.requires_grad))
        if isinstance(module, nn.Embedding):
            module.num_embeddings = len(matrix)
            continue
        module.out_features = len(matrix)
        if module.bias is not None:
            zeros = torch.zeros(max(0, len(matrix) - len(module.bias))).to(module.bias)
            module.bias = nn.Parameter(torch.cat([module.bias.detach(), zeros])[: len(matrix)], requires_grad=False)
