"""The bodies of requests, by endpoint. Unknown fields are ignored; the `dlm` object is strict."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from dlm.serve.fields import (
    MOST_MESSAGES,
    STATE,
    TOOLS,
    Body,
    Effort,
    Ignored,
    Neutral,
    Sampling,
    Text,
)

MOST_PARTS: Final = 256
MOST_PROMPTS: Final = 64
MOST_IDS: Final = 65_536
MOST_TOP: Final = 20


class TextPart(Body):
    """A part of a message; text alone is taken."""

    type: str
    text: Text | None = None


class Message(Body):
    """One message of a talk."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], Field(max_length=MOST_PARTS)] | None = None
    name: Annotated[Any, Ignored("chat templates have no names")] = None
    refusal: Annotated[Any, Neutral((), "cannot be shown to a model")] = None
    tool_calls: Annotated[list[Any] | None, Neutral(([],), TOOLS)] = None
    function_call: Annotated[Any, Neutral((), TOOLS)] = None
    audio: Annotated[Any, Neutral((), "is no text")] = None


class ResponseFormat(Body):
    """The form of an answer; `text` is the one there is."""

    type: str


TextFormat = Annotated[ResponseFormat | None, Field(description="`text` alone")]
Length = Annotated[
    int | None,
    Field(
        ge=1, le=2**31 - 1, description="tokens of the answer at most; left out: `--max-new-tokens`"
    ),
]
Alternatives = Annotated[
    int | None, Field(ge=0, le=MOST_TOP, description="most likely tokens told with each token")
]


class ChatRequest(Sampling):
    """The body of `/v1/chat/completions`."""

    messages: Annotated[
        list[Message],
        Field(min_length=1, max_length=MOST_MESSAGES, description="texts with their roles"),
    ]
    max_completion_tokens: Annotated[
        int | None,
        Field(ge=1, le=2**31 - 1, description="tokens of the answer at most; before `max_tokens`"),
    ] = None
    max_tokens: Length = None
    logprobs: Annotated[
        bool | None, Field(description="log-probability of each token at its commit, and the step")
    ] = None
    top_logprobs: Alternatives = None
    response_format: TextFormat = None
    continue_final_message: Annotated[
        bool | None, Field(description="true: the last message, the assistant's, is gone on with")
    ] = None
    add_generation_prompt: Annotated[
        bool | None, Field(description="false only beside `continue_final_message`")
    ] = None
    chat_template_kwargs: Annotated[
        dict[str, Any] | None, Field(description="variables of the chat template")
    ] = None
    tools: Annotated[list[Any] | None, Neutral(([],), TOOLS)] = None
    tool_choice: Annotated[Any, Neutral(("none", "auto"), TOOLS)] = None
    parallel_tool_calls: Annotated[Any, Ignored("there are no tools")] = None
    functions: Annotated[list[Any] | None, Neutral(([],), TOOLS)] = None
    function_call: Annotated[Any, Neutral(("none", "auto"), TOOLS)] = None
    modalities: Annotated[Any, Neutral((["text"],), "asks for more than text")] = None
    audio: Annotated[Any, Neutral((), "asks for more than text")] = None
    prediction: Annotated[Any, Neutral((), "is not supported; give known text in dlm.infill")] = (
        None
    )
    web_search_options: Annotated[Any, Neutral((), TOOLS)] = None
    verbosity: Annotated[Any, Neutral(("medium",), "is no option that dlm has")] = None
    logits_processors: Annotated[Any, Neutral((), "is code; use dlm.guide")] = None


Ids = Annotated[list[int], Field(max_length=MOST_IDS)]


class CompletionRequest(Sampling):
    """The body of `/v1/completions`."""

    prompt: Annotated[
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS)],
        Field(description="texts as they are, without the chat template, or token ids"),
    ]
    max_tokens: Annotated[
        int | None,
        Field(
            ge=0,
            le=2**31 - 1,
            description="tokens of each answer at most; left out: 16; 0: `echo` alone",
        ),
    ] = None
    logprobs: Alternatives = None
    echo: Annotated[
        bool | None,
        Field(description="the prompt before each answer, with its `logprobs` where asked for"),
    ] = None
    suffix: Annotated[
        Text | None, Field(description="text after a gap of `max_tokens` tokens, which is filled")
    ] = None
    response_format: TextFormat = None


class FimRequest(Sampling):
    """The body of `/v1/fim/completions`: a text with a gap between `prompt` and `suffix`."""

    prompt: Annotated[Text, Field(description="the text before the gap")]
    suffix: Annotated[Text | None, Field(description="the text after the gap")] = None
    max_tokens: Length = None


Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=64)],
        Annotated[str, Field(max_length=512)],
    ],
    Field(max_length=16),
]
"""The metadata that a response repeats, bounded as OpenAI has it."""


class InputItem(Body):
    """One item of a response's input: a message."""

    type: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Text | Annotated[list[TextPart], Field(max_length=MOST_PARTS)] | None = None


class Reasoning(Body):
    """The effort of a response."""

    effort: Effort | None = None
    summary: Annotated[Any, Neutral(("auto",), "is nothing that dlm has")] = None


class TextConfig(Body):
    """The form of a response's text."""

    format: ResponseFormat | None = None
    verbosity: Annotated[Any, Neutral(("medium",), "is no option that dlm has")] = None


class ResponsesRequest(Sampling):
    """The body of `/v1/responses`."""

    input: Annotated[
        Text | Annotated[list[InputItem], Field(min_length=1, max_length=MOST_MESSAGES)],
        Field(description="a text, or messages of texts"),
    ]
    instructions: Annotated[Text | None, Field(description="a system message before it")] = None
    max_output_tokens: Length = None
    reasoning: Annotated[Reasoning | None, Field(description="`effort`, as `reasoning_effort`")] = (
        None
    )
    text: Annotated[TextConfig | None, Field(description="the form: `text` alone")] = None
    top_logprobs: Alternatives = None
    include: Annotated[
        list[str] | None, Field(description="`message.output_text.logprobs` alone")
    ] = None
    n: Annotated[int | None, Neutral((1,), "is no field of responses")] = None
    metadata: Metadata | None = None
    store: Annotated[bool | None, Neutral((False,), STATE)] = None
    previous_response_id: Annotated[Any, Neutral((), STATE)] = None
    conversation: Annotated[Any, Neutral((), STATE)] = None
    background: Annotated[bool | None, Neutral((False,), STATE)] = None
    prompt: Annotated[Any, Neutral((), STATE)] = None
    context_management: Annotated[Any, Neutral((), STATE)] = None
    truncation: Annotated[Any, Neutral(("disabled",), "would drop parts of the input")] = None
    max_tool_calls: Annotated[Any, Ignored("there are no tools")] = None
    tools: Annotated[list[Any] | None, Neutral(([],), TOOLS)] = None
    tool_choice: Annotated[Any, Neutral(("none", "auto"), TOOLS)] = None
    parallel_tool_calls: Annotated[Any, Ignored("there are no tools")] = None


class TokenizeRequest(Body):
    """The body of `/tokenize`: a text, or messages as a chat sends them."""

    model: str | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Body):
    """The body of `/detokenize`."""

    model: str | None = None
    tokens: Ids
