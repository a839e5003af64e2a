"""The fields of OpenAI's requests, one table: type and bounds, and the server's rule for each.

The schemas are that table. The rule of a field stands beside its type: it is honoured (no mark),
`Neutral` (only values that ask for nothing are taken), or `Ignored` (taken, without effect on the
answer). Fields that no schema has are ignored; the `dlm` object alone is strict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dlm.serve.errors import refused

MOST_MESSAGES: Final = 1024
MOST_PARTS: Final = 256
MOST_STOPS: Final = 16
MOST_PROMPTS: Final = 64
MOST_IDS: Final = 65_536
MOST_CHOICES: Final = 16
MOST_TOP: Final = 20
MOST_BIASES: Final = 1024


@dataclass(frozen=True, slots=True)
class Neutral:
    """The mark of a field that cannot be honoured: any value but these is refused.

    values: those that ask for nothing (None always does)
    why: the reason of a refusal
    """

    values: tuple[Any, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """The mark of a field that has no effect on the answer.

    why: the reason
    """

    why: str = "bookkeeping of the caller"


ORDER: Final = "depends on the order of the tokens, and a step commits several at once"
TOOLS: Final = "asks for tools, which this server does not have"
STATE: Final = "this server stores nothing"


class Body(BaseModel):
    """The base of all schemas: exact types, finite numbers, unknown fields ignored."""

    model_config = ConfigDict(
        strict=True, allow_inf_nan=False, extra="ignore", frozen=True, protected_namespaces=()
    )


class Strict(Body):
    """The base of schemas of dlm's own: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


Text = Annotated[str, StringConstraints(max_length=4_194_304)]
StopText = Annotated[str | None, StringConstraints(max_length=256)]
Effort = Literal["none", "instant", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(Body):
    """What a stream tells beside the text."""

    include_usage: bool | None = None
    continuous_usage_stats: Annotated[
        bool | None, Neutral((False,), "is not supported; `include_usage` sends the sum at the end")
    ] = None
    include_obfuscation: Annotated[bool | None, Ignored("chunks are never padded")] = None


class Sampling(Body):
    """Fields that all endpoints which generate have in common."""

    model: Annotated[str | None, Field(max_length=256)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=-1, le=2**31 - 1)] = None
    min_p: Annotated[float | None, Neutral((0,), "is no filter that dlm has")] = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES)] = None
    best_of: Annotated[int | None, Neutral((1,), "needs a search; ask for n answers")] = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MOST_STOPS)] = None
    stop_token_ids: Annotated[list[int] | None, Field(max_length=MOST_STOPS)] = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    skip_special_tokens: Annotated[
        bool | None, Neutral((True,), "must be true: control tokens are never part of a text")
    ] = None
    logit_bias: Annotated[dict[str, float] | None, Field(max_length=MOST_BIASES)] = None
    frequency_penalty: Annotated[float | None, Neutral((0,), ORDER)] = None
    presence_penalty: Annotated[float | None, Neutral((0,), ORDER)] = None
    repetition_penalty: Annotated[float | None, Neutral((1,), ORDER)] = None
    bad_words: Annotated[list[Any] | None, Neutral(([],), "needs words of several tokens")] = None
    allowed_token_ids: Annotated[
        list[Any] | None, Neutral(([],), "is not supported; use logit_bias or dlm.guide")
    ] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    diffusing: bool | None = None
    reasoning_effort: Effort | None = None
    return_token_ids: bool | None = None
    dlm: dict[str, Any] | None = None
    user: Annotated[Any, Ignored()] = None
    metadata: Annotated[Any, Ignored()] = None
    store: Annotated[bool | None, Ignored(STATE)] = None
    service_tier: Annotated[Any, Ignored("there is one tier")] = None
    safety_identifier: Annotated[Any, Ignored()] = None
    prompt_cache_key: Annotated[Any, Ignored("prefixes are shared by their tokens")] = None
    priority: Annotated[Any, Ignored("requests are served in their order")] = None


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
    audio: Annotated[Any, Neutral((), "text alone is understood")] = None


class ResponseFormat(Body):
    """The form of an answer; `text` is the one there is."""

    type: str


class ChatRequest(Sampling):
    """The body of `/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MOST_TOP)] = None
    response_format: ResponseFormat | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: Annotated[list[Any] | None, Neutral(([],), TOOLS)] = None
    tool_choice: Annotated[Any, Neutral(("none", "auto"), TOOLS)] = None
    parallel_tool_calls: Annotated[Any, Ignored("there are no tools")] = None
    functions: Annotated[list[Any] | None, Neutral(([],), TOOLS)] = None
    function_call: Annotated[Any, Neutral(("none", "auto"), TOOLS)] = None
    modalities: Annotated[Any, Neutral((["text"],), "answers are text")] = None
    audio: Annotated[Any, Neutral((), "answers are text")] = None
    prediction: Annotated[Any, Neutral((), "is not supported; give known text in dlm.infill")] = (
        None
    )
    web_search_options: Annotated[Any, Neutral((), TOOLS)] = None
    verbosity: Annotated[Any, Neutral(("medium",), "is no option that dlm has")] = None
    logits_processors: Annotated[Any, Neutral((), "is code; use dlm.guide")] = None


Ids = Annotated[list[int], Field(max_length=MOST_IDS)]


class CompletionRequest(Sampling):
    """The body of `/v1/completions`."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    max_tokens: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    logprobs: Annotated[int | None, Field(ge=0, le=MOST_TOP)] = None
    echo: bool | None = None
    suffix: Text | None = None
    response_format: ResponseFormat | None = None


class FimRequest(Sampling):
    """The body of `/v1/fim/completions`: a text with a gap between `prompt` and `suffix`."""

    prompt: Text
    suffix: Text | None = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None
    min_tokens: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None


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

    input: Text | Annotated[list[InputItem], Field(min_length=1, max_length=MOST_MESSAGES)]
    instructions: Text | None = None
    max_output_tokens: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MOST_TOP)] = None
    include: list[str] | None = None
    n: Annotated[int | None, Neutral((1,), "is no field of responses")] = None
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


def check_supported(body: BaseModel, where: str = "") -> None:
    """Raise `ApiError` 400 for a field that is set to a value which cannot be honoured."""
    for name, field in type(body).model_fields.items():
        value = getattr(body, name)
        for mark in field.metadata:
            taken = isinstance(mark, Neutral) and (value is None or value in mark.values)
            if isinstance(mark, Neutral) and not taken:
                raise refused(
                    f"{where}{name}", f"`{where}{name}` {mark.why}", "unsupported_parameter"
                )
        if isinstance(value, BaseModel):
            check_supported(value, f"{where}{name}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    check_supported(item, f"{where}{name}[{index}].")
