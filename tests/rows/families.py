"""Chat templates of real families, in our own wording: each renders exactly the published format of its family.

`published(...)` strings in the tests are written out by hand, so that a template that is wrong here is found.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A template, its special tokens, and what stands after each answer."""

    template: str
    eos: str
    end: str
    specials: tuple[str, ...]
    bos: str | None = None
    lead: str = ""  # what the model writes before the answer
    has_system: bool = True


CHATML = Family(
    template=(
        "{% for m in messages %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    eos="<|im_end|>",
    end="<|im_end|>",
    specials=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
)

QWEN = Family(  # a default system text, and thoughts dropped from earlier answers (as Qwen3 does)
    template=(
        "{% if messages[0].role != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
        "{% endif %}"
        "{% set ns = namespace(last=-1) %}"
        "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}"
        "{% set text = m.content %}"
        "{% if m.role == 'assistant' and '</think>' in text and loop.index0 < ns.last %}"
        "{% set text = text.split('</think>')[-1].lstrip('\n') %}"
        "{% endif %}"
        "{{ '<|im_start|>' ~ m.role ~ '\n' ~ text ~ '<|im_end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    eos="<|im_end|>",
    end="<|im_end|>",
    specials=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
)

LLAMA3 = Family(
    template=(
        "{{- bos_token }}"
        "{%- set day = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}"
        "{%- set rest = messages %}{%- set told = '' %}"
        "{%- if messages[0]['role'] == 'system' %}"
        "{%- set told = messages[0]['content'] | trim %}{%- set rest = messages[1:] %}"
        "{%- endif %}"
        "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' }}"
        "{{- day + '\n\n' + told + '<|eot_id|>' }}"
        "{%- for m in rest %}"
        "{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
    ),
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
    end="<|eot_id|>",
    specials=("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)

LLAMA2 = Family(  # also early Mistral: system text inside the first instruction
    template=(
        "{% set ns = namespace(told='') %}"
        "{% if messages[0].role == 'system' %}{% set ns.told = messages[0].content %}{% endif %}"
        "{% for m in messages if m.role != 'system' %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
        "{% endif %}"
        "{% if m.role == 'user' %}"
        "{% set told = '<<SYS>>\n' ~ ns.told ~ '\n<</SYS>>\n\n' if loop.first and ns.told else '' %}"
        "{{ bos_token ~ '[INST] ' ~ (told ~ m.content) | trim ~ ' [/INST]' }}"
        "{% else %}{{ ' ' ~ m.content | trim ~ ' ' ~ eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    bos="<s>",
    eos="</s>",
    end="</s>",
    lead=" ",
    specials=("<s>", "</s>", "<unk>"),
)

MISTRAL = Family(  # system text before the last user turn: earlier turns change later
    template=(
        "{{ bos_token }}"
        "{% set ns = namespace(told='', last=-1) %}"
        "{% for m in messages %}"
        "{% if m.role == 'system' %}{% set ns.told = m.content %}{% endif %}"
        "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
        "{% endfor %}"
        "{% for m in messages %}"
        "{% if m.role == 'user' %}"
        "{{ '[INST] ' ~ (ns.told ~ '\n\n' if loop.index0 == ns.last and ns.told else '') ~ m.content ~ '[/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ ' ' ~ m.content ~ eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    bos="<s>",
    eos="</s>",
    end="</s>",
    lead=" ",
    specials=("<s>", "</s>", "<unk>", "[INST]", "[/INST]"),
)

GEMMA = Family(
    template=(
        "{{ bos_token }}"
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}"
        "{% set role = 'model' if m.role == 'assistant' else m.role %}"
        "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    bos="<bos>",
    eos="<eos>",
    end="<end_of_turn>",
    has_system=False,
    specials=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
)

PHI3 = Family(
    template=(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    bos="<s>",
    eos="<|endoftext|>",
    end="<|end|>",
    specials=("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
)

ZEPHYR = Family(
    template=(
        "{% for m in messages %}\n"
        "{{ '<|' ~ m.role ~ '|>\n' ~ m.content ~ eos_token }}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
        "{% endfor %}"
    ),
    bos="<s>",
    eos="</s>",
    end="</s>",
    specials=("<s>", "</s>", "<unk>"),
)

GRANITE = Family(
    template=(
        "{% for m in messages %}"
        "{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' }}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|end_of_text|>' }}{% endgeneration %}"
        "{% else %}{{ m.content + '<|end_of_text|>' }}{% endif %}{{ '\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
    ),
    eos="<|end_of_text|>",
    end="<|end_of_text|>",
    specials=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
)

DEEPSEEK = Family(  # thoughts dropped from every answer that is not the last
    template=(
        "{{ bos_token }}"
        "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
        "{% for m in messages %}"
        "{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
        "{% elif m.role == 'assistant' %}"
        "{% set text = m.content %}"
        "{% if not loop.last and '</think>' in text %}{% set text = text.split('</think>')[-1] %}{% endif %}"
        "{{ '<｜Assistant｜>' + text + eos_token }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
    ),
    bos="<｜begin▁of▁sentence｜>",
    eos="<｜end▁of▁sentence｜>",
    end="<｜end▁of▁sentence｜>",
    specials=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
)

FAMILIES = {
    "chatml": CHATML,
    "qwen": QWEN,
    "llama3": LLAMA3,
    "llama2": LLAMA2,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "phi3": PHI3,
    "zephyr": ZEPHYR,
    "granite": GRANITE,
    "deepseek": DEEPSEEK,
}
