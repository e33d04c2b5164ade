"""Templates of strangers: each known attack is refused, in time and in memory, and rendering goes on afterwards."""

from __future__ import annotations

import os
import time

import pytest

from luthier.ground.errors import BadInput
from luthier.rows.sandbox import Job, TemplateFault, render, try_render
from luthier.rows.template import Renderer
from rows.conftest import make_tokenizer
from rows.families import CHATML

USER = [{"role": "user", "content": "hi"}]

ATTACKS = {
    "huge_product": "{{ 'a' * 200000000 }}",
    "huge_power": "{{ 9 ** (9 ** 9) }}",
    "huge_list": "{{ ([0] * 1000000000) | length }}",
    "huge_range": "{{ range(1000000000) | list }}",
    "nested_loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "shared_lists": (
        "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}"
    ),
    "long_output": "{% for i in range(99999) %}{{ 'abcdefghijklmnopqrstuvwxyz' * 4000 }}{% endfor %}",
    "output": "{% for i in range(300) %}{{ 'x' * 10000 }}{% endfor %}",
    "wide_format": "{{ '%200000000d' | format(1) }}",
    "wide_justify": "{{ 'x'.ljust(500000000) }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as p %}",
    "extends": "{% extends '/etc/passwd' %}",
    "dunder_walk": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr_filter": "{{ '' | attr('__class__') }}",
    "map_attribute": "{{ [''] | map(attribute='__class__') | list }}",
    "format_hop": "{{ '{0.__class__.__mro__}'.format('') }}",
    "format_map_hop": "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "globals_of_function": "{{ raise_exception.__globals__ }}",
    "namespace_dunder": "{% set n = namespace(__class__=1) %}{% set n.__x = 1 %}{{ n.__init__.__globals__ }}",
    "mutation": "{{ messages.append(1) }}",
    "undefined_hop": "{{ nothing.__class__ }}",
    "broken": "{% for m in messages %}",
    "huge_source": "{# " + "x" * 300_000 + " #}",
}


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attack_is_refused_in_time(name: str) -> None:
    """Processor time of this process and its ended children: the limit of one render and the start of a new child.

    The least of up to three tries: on a processor that others use too, the same work is sometimes told as more.
    """
    taken = [_refused(name, 0)]
    while min(taken) >= 1.0 and len(taken) < 3:
        taken.append(_refused(name, len(taken)))
    assert min(taken) < 1.0
    assert render("fine", "{{ messages[0].content }}", {}, [Job(USER, False)]) == ["hi"]


def _refused(name: str, again: int) -> float:
    """Return the seconds that it takes to refuse an attack."""
    started = time.process_time() + os.times().children_user
    [result] = try_render(f"attack-{name}-{again}", ATTACKS[name], {}, [Job(USER, False)])
    assert isinstance(result, TemplateFault), result
    assert "template" in result.sentence
    return time.process_time() + os.times().children_user - started


@pytest.mark.parametrize(
    "name", ["huge_product", "huge_list", "doubling", "long_output", "wide_format", "wide_justify"]
)
def test_memory_is_the_reason(name: str) -> None:
    [result] = try_render(f"memory-{name}", ATTACKS[name], {}, [Job(USER, False)])
    assert isinstance(result, TemplateFault) and result.kind == "memory"


def test_a_renderer_is_not_made_of_an_attack() -> None:
    with pytest.raises(BadInput, match="may not do"):
        Renderer(make_tokenizer(CHATML), chat_template=ATTACKS["dunder_walk"])


def test_an_attack_that_waits_for_a_word_is_refused_when_the_word_comes() -> None:
    source = "{% if messages[0].content == 'bomb' %}{{ 'a' * 900000000 }}{% else %}ok{% endif %}"
    bomb = [{"role": "user", "content": "bomb"}]
    first, second = try_render("waits", source, {}, [Job(USER, False), Job(bomb, False)])
    assert first == "ok"
    assert second == TemplateFault("memory", "MemoryError")


def test_what_published_templates_expect_is_there() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}"
        "{{ m | tojson }}{{ m.items() | list | length }}{% endfor %}"
        "{% generation %}{{ [1, 2] | tojson(indent=None) }}{% endgeneration %}"
        "{{ strftime_now('%Y') }}{{ '  x ' | trim }}{% set n = namespace(a=1) %}{% set n.a = 2 %}{{ n.a }}"
    )
    messages = [{"role": "user", "content": "Grüße <b>"}, {"role": "user", "content": "no"}]
    assert render("features", source, {"bos_token": "<s>"}, [Job(messages, False)]) == [
        '<s>{"role": "user", "content": "Grüße <b>"}2[1, 2]2025x2'
    ]


def test_raise_exception_is_told_as_the_refusal_of_a_conversation() -> None:
    [fault] = try_render("raises", "{{ raise_exception('roles must alternate') }}", {}, [Job(USER, False)])
    assert isinstance(fault, TemplateFault) and fault.kind == "refused"
    assert "roles must alternate" in fault.sentence


def test_the_child_can_be_killed_and_comes_back() -> None:
    from luthier.rows import sandbox

    assert render("kill", "a", {}, [Job(USER, False)]) == ["a"]
    sandbox._CHILDREN[0].process.kill()
    sandbox._CHILDREN[0].process.wait()
    assert render("kill", "a", {}, [Job(USER, False)]) == ["a"]


def test_a_large_row_is_rendered() -> None:
    large = [{"role": "user", "content": "word " * 400_000}]
    [text] = render("large", "{{ messages[0].content | trim }}", {}, [Job(large, False)])
    assert text == large[0]["content"].strip()
