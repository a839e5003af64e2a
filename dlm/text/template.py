"""Chat templates: messages to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dlm.errors import InvalidRequest

TALKS: Final = (("user",), ("system", "user"), ("user", "assistant"))


def render(
    template: str,
    messages: Sequence[dict[str, str]],
    variables: Mapping[str, Any],
) -> str:
    """The template's text for `messages`, ready for the answer; a final answer is gone on with.

    Raises `InvalidRequest` if the template refuses the messages.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    resume = messages[-1]["role"] == "assistant"
    try:
        rendered: Any = render_jinja_template(
            [[*messages]],
            chat_template=template,
            add_generation_prompt=not resume,
            continue_final_message=resume,
            **variables,
        )
    except Exception as error:  # of Jinja, or of what the template computes
        raise InvalidRequest("messages", f"the chat template refuses: {error}") from error
    text: str = rendered[0][0]
    return text


def sample_texts(template: str, variables: Mapping[str, Any]) -> str:
    """The texts that the template writes around short talks, and its source."""
    texts = [template]
    for roles in TALKS:
        try:
            texts.append(render(template, [{"role": r, "content": "a"} for r in roles], variables))
        except InvalidRequest:  # a template need not know every role
            continue
    return "\n".join(texts)
