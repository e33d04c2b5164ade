"""Chat templates that know tools, written for these tests in the style of three families."""

from __future__ import annotations

from rows.families import Family

QWEN_TOOLS = Family(  # tools in the system text, results inside turns of the user
    template=(
        "{% set told = messages[0].content if messages[0].role == 'system' else 'You help.' %}"
        "{{ '<|im_start|>system\\n' + told }}"
        "{% if tools %}{{ '\\n\\n# Tools\\n<tools>' }}"
        "{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}{{ '\\n</tools>' }}{% endif %}"
        "{{ '<|im_end|>\\n' }}"
        "{% for m in messages if m.role != 'system' %}"
        "{% if m.role == 'tool' %}"
        "{% if loop.previtem is undefined or loop.previtem.role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
        "{{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}"
        "{% if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}"
        "{% elif m.role == 'assistant' %}{{ '<|im_start|>assistant\\n' }}{% generation %}{{ m.content }}"
        "{% for call in m.tool_calls %}"
        "{% if m.content or not loop.first %}{{ '\\n' }}{% endif %}"
        '{{ \'<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
        "{{ call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}"
        "{% endfor %}{{ '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    eos="<|im_end|>",
    end="<|im_end|>",
    specials=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
)

LLAMA3_TOOLS = Family(  # tools in the first user turn, calls end with another token, no text beside them
    template=(
        "{{ bos_token }}"
        "{% if tools is not none %}{% set listed = tools %}{% else %}{% set listed = [] %}{% endif %}"
        "{% set ns = namespace(told=not listed) %}"
        "{% for m in messages %}"
        "{% if m.role == 'tool' %}"
        "{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + m.content | tojson + '<|eot_id|>' }}"
        "{% elif m.tool_calls %}"
        "{% if m.content %}{{ raise_exception('A call stands alone') }}{% endif %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% generation %}"
        "{% for call in m.tool_calls %}"
        '{{ \'{"name": "\' + call.function.name + \'", "parameters": \' }}'
        "{{ call.function.arguments | tojson }}{{ '}' }}{% if not loop.last %}{{ '; ' }}{% endif %}"
        "{% endfor %}{{ '<|eom_id|>' }}{% endgeneration %}"
        "{% else %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}"
        "{% if m.role == 'user' and not ns.told %}{% set ns.told = true %}"
        "{% for tool in listed %}{{ tool.function | tojson(indent=2) + '\\n\\n' }}{% endfor %}{% endif %}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim + '<|eot_id|>' }}{% endgeneration %}"
        "{% else %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
    end="<|eot_id|>",
    specials=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),
)

MISTRAL_TOOLS = Family(  # tools before the last user turn: earlier turns change later; ids of nine characters
    template=(
        "{{ bos_token }}"
        "{% set ns = namespace(last=-1) %}"
        "{% for m in messages if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endfor %}"
        "{% set count = namespace(users=0) %}"
        "{% for m in messages %}"
        "{% if m.role == 'user' %}"
        "{% if tools and count.users == ns.last %}{{ '[AVAILABLE_TOOLS]' }}{{ tools | tojson }}"
        "{{ '[/AVAILABLE_TOOLS]' }}{% endif %}"
        "{% set count.users = count.users + 1 %}"
        "{{ '[INST]' + m.content + '[/INST]' }}"
        "{% elif m.role == 'tool' %}"
        "{{ '[TOOL_RESULTS]' + {'content': m.content, 'call_id': m.tool_call_id} | tojson + '[/TOOL_RESULTS]' }}"
        "{% elif m.role == 'assistant' and m.tool_calls %}"
        "{% generation %}{{ '[TOOL_CALLS][' }}{% for call in m.tool_calls %}"
        "{% if call.id | length != 9 %}{{ raise_exception('Ids of calls must have 9 characters') }}{% endif %}"
        "{{ {'name': call.function.name, 'arguments': call.function.arguments, 'id': call.id} | tojson }}"
        "{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ ']' + eos_token }}{% endgeneration %}"
        "{% elif m.role == 'assistant' %}"
        "{% generation %}{{ ' ' + m.content + eos_token }}{% endgeneration %}"
        "{% else %}{{ raise_exception('Only user, assistant and tool') }}{% endif %}"
        "{% endfor %}"
    ),
    bos="<s>",
    eos="</s>",
    end="</s>",
    has_system=False,
    specials=(
        "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
        "[/TOOL_RESULTS]",
    ),
)  # fmt: skip

TOOL_FAMILIES = {"qwen": QWEN_TOOLS, "llama3": LLAMA3_TOOLS, "mistral": MISTRAL_TOOLS}
