"""Which layers are chosen, and what is said when a name is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import PreTrainedModel

from luthier.adapters.targets import choose_targets, leaf_names
from luthier.ground.errors import BadInput

MakeModel = Callable[..., PreTrainedModel]
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    ("family", "targets", "leaves"),
    [
        ("llama", "all-linear", ATTENTION | MLP),
        ("llama", "attention", ATTENTION),
        ("llama", "mlp", MLP),
        ("llama", ("q_proj", "mlp.up_proj"), {"q_proj", "up_proj"}),
        ("gpt_neox", "all-linear", {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
        ("gpt_neox", "attention", {"query_key_value", "dense"}),
    ],
)
def test_groups_and_names(make_model: MakeModel, family: str, targets: str | tuple[str, ...], leaves: set[str]) -> None:
    paths = choose_targets(make_model(family), targets)
    assert {path.rsplit(".", 1)[-1] for path in paths} == leaves
    assert len(paths) == 2 * len(leaves) and all(".layers." in path for path in paths)


def test_a_wrong_name_lists_the_right_ones(make_model: MakeModel) -> None:
    with pytest.raises(BadInput) as caught:
        choose_targets(make_model(), ("q_proj", "w_proj"))
    text = str(caught.value)
    assert text.startswith('train.adapter.targets: no linear layer is called "w_proj" (did you mean "')
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in text


def test_the_output_head_is_not_offered(make_model: MakeModel) -> None:
    with pytest.raises(BadInput, match='no linear layer is called "lm_head"'):
        choose_targets(make_model("qwen2"), ("lm_head",))


def test_a_model_without_linear_layers_is_told(make_model: MakeModel) -> None:
    with pytest.raises(BadInput, match=r"GPT2LMHeadModel has no nn\.Linear"):
        choose_targets(make_model("gpt2"), "all-linear")


def test_short_names_are_used_only_where_they_mean_the_same(make_model: MakeModel) -> None:
    model = make_model()
    paths = choose_targets(model, "attention")
    assert set(leaf_names(model, paths)) == ATTENTION
    some = [path for path in paths if ".layers.1." in path]
    assert leaf_names(model, some) == some
