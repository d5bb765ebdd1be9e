"""The chat template of exported dialogue models: Jinja that renders what `Tokenizer.encode_prompt` encodes.

Not covered: a message that contains a special token's name. Here text is data, and the name is encoded as its letters;
transformers parses the rendered text, and takes the name for the token.
"""

from __future__ import annotations

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' and not loop.first -%}
{{- raise_exception('messages: a system message may only come first') -}}
{%- elif message['role'] != 'system' and message['role'] != ('assistant' if not loop.first and \
messages[loop.index0 - 1]['role'] == 'user' else 'user') -%}
{{- raise_exception('messages: user and assistant must alternate, beginning with the user') -}}
{%- endif -%}
{{- '<|' + message['role'] + '|>' + message['content'] -}}
{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""
"""Each turn behind its role token, EOS after each of the assistant's, and the assistant's role token at the end."""
