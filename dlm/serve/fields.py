"""The fields that all endpoints which generate share, and the rules that a field may have.

The schemas, here and in `schemas.py`, are the table of fields: type, bounds, meaning and rule. A
field without a mark is honoured; `Neutral` ones take only values that ask for nothing, `Ignored`
ones have no effect on the answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dlm.errors import shown
from dlm.serve.errors import ApiError, refused

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
    why: the reason of a refusal, as "it ..."
    """

    values: tuple[Any, ...]
    why: str

    @property
    def rule(self) -> str:
        """The values that are taken, in words."""
        named = " or ".join(json.dumps(value) for value in self.values)
        return f"must be {named} or left out" if named else "must be left out"


@dataclass(frozen=True, slots=True)
class Ignored:
    """The mark of a field that has no effect on the answer.

    why: the reason
    """

    why: str = "bookkeeping of the caller"


ORDER: Final = "depends on the order of the tokens, and a step commits several at once"
TOOLS: Final = "asks for tools, which this server does not have"
STATE: Final = "needs stored state, and this server stores nothing"


class Body(BaseModel):
    """The base of all schemas: exact types, finite numbers, unknown fields ignored."""

    model_config = ConfigDict(
        strict=True, allow_inf_nan=False, extra="ignore", frozen=True, protected_namespaces=()
    )


class EndpointBody(Body):
    """The base of the bodies of endpoints that answer: unknown fields are kept, to be looked up."""

    model_config = ConfigDict(extra="allow")


class Strict(Body):
    """The base of schemas of dlm's own: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


Text = Annotated[str, StringConstraints(max_length=4_194_304)]
StopText = Annotated[str | None, StringConstraints(max_length=256)]
Effort = Literal["none", "instant", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(Body):
    """The facts that a stream tells beside the text."""

    include_usage: bool | None = None
    continuous_usage_stats: Annotated[
        bool | None, Neutral((False,), "is not supported; `include_usage` sends the sum at the end")
    ] = None
    include_obfuscation: Annotated[bool | None, Ignored("chunks are never padded")] = None


class Sampling(EndpointBody):
    """Fields that all endpoints which generate have in common."""

    model: Annotated[
        str | None, Field(max_length=256, description="the one that is served, or left out")
    ] = None
    temperature: Annotated[
        float | None,
        Field(ge=0, le=2, description="0, the default, takes the most likely token"),
    ] = None
    top_p: Annotated[
        float | None, Field(gt=0, le=1, description="share of the probability to draw from")
    ] = None
    top_k: Annotated[
        int | None, Field(ge=-1, le=2**31 - 1, description="ids to draw from; 0 and -1: all")
    ] = None
    min_p: Annotated[float | None, Neutral((0,), "is no filter that dlm has")] = None
    seed: Annotated[
        int | None,
        Field(ge=-(2**63), lt=2**63, description="left out: a random one, told as `dlm.seed`"),
    ] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES, description="answers to each prompt")] = (
        None
    )
    best_of: Annotated[int | None, Neutral((1,), "needs a search: see dlm.search")] = None
    stop: Annotated[
        StopText | Annotated[list[StopText], Field(max_length=MOST_STOPS)],
        Field(description="texts that end the answer; empty ones and nulls ask for nothing"),
    ] = None
    stop_token_ids: Annotated[
        list[int] | None,
        Field(max_length=MOST_STOPS, description="ids that end the answer, as end ids do"),
    ] = None
    include_stop_str_in_output: Annotated[
        bool | None, Field(description="the text ends with the stop string that was found")
    ] = None
    ignore_eos: Annotated[
        bool | None, Field(description="no end id is produced: the answer has its full length")
    ] = None
    min_tokens: Annotated[
        int | None,
        Field(ge=0, le=2**31 - 1, description="no end id among this many first tokens"),
    ] = None
    skip_special_tokens: Annotated[
        bool | None, Neutral((True,), "asks for control tokens, which are never part of a text")
    ] = None
    logit_bias: Annotated[
        dict[str, float] | None,
        Field(max_length=MOST_BIASES, description="-100 to 100, added to the logits of ids"),
    ] = None
    frequency_penalty: Annotated[float | None, Neutral((0,), ORDER)] = None
    presence_penalty: Annotated[float | None, Neutral((0,), ORDER)] = None
    repetition_penalty: Annotated[float | None, Neutral((1,), ORDER)] = None
    bad_words: Annotated[list[Any] | None, Neutral(([],), "needs words of several tokens")] = None
    allowed_token_ids: Annotated[
        list[Any] | None, Neutral(([],), "is not supported; use logit_bias or dlm.guide")
    ] = None
    stream: Annotated[bool | None, Field(description="settled text as it comes")] = None
    stream_options: Annotated[
        StreamOptions | None, Field(description="`include_usage`: a last chunk tells the usage")
    ] = None
    diffusing: Annotated[
        bool | None, Field(description="a stream of whole texts, each in place of the last")
    ] = None
    reasoning_effort: Annotated[Effort | None, Field(description="stands for a preset")] = None
    return_token_ids: Annotated[
        bool | None, Field(description="ids, steps and log-probabilities of all tokens")
    ] = None
    dlm: Annotated[
        dict[str, Any] | None, Field(max_length=64, description="options of dlm's own, strict")
    ] = None
    user: Annotated[Any, Ignored()] = None
    metadata: Annotated[Any, Ignored()] = None
    store: Annotated[bool | None, Ignored("this server stores nothing")] = None
    service_tier: Annotated[Any, Ignored("there is one tier")] = None
    safety_identifier: Annotated[Any, Ignored()] = None
    prompt_cache_key: Annotated[Any, Ignored("prefixes are shared by their tokens")] = None
    priority: Annotated[Any, Ignored("requests are served in their order")] = None


def unsupported(param: str, mark: Neutral, value: Any) -> ApiError:
    """The error 400 for a field whose value cannot be honoured."""
    told = f"`{param}` {mark.rule}, got {shown(value)}: it {mark.why}"
    return refused(param, told, "unsupported_parameter")


def check_supported(body: BaseModel, where: str = "") -> None:
    """Raise `ApiError` 400 for a field that is set to a value which cannot be honoured."""
    for name, field in type(body).model_fields.items():
        value = getattr(body, name)
        for mark in field.metadata:
            taken = isinstance(mark, Neutral) and (value is None or value in mark.values)
            if isinstance(mark, Neutral) and not taken:
                raise unsupported(f"{where}{name}", mark, value)
        if isinstance(value, BaseModel):
            check_supported(value, f"{where}{name}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    check_supported(item, f"{where}{name}[{index}].")
