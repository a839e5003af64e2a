"""A server that speaks OpenAI's protocol in place of an engine: its model is evaluated.

The server decodes as it is set up: of the options only the protocol's own are sent (length,
temperature, top-p, seed, stop strings). A server of `dlm` receives the others too: those that its
protocol has fields for, and the rest in its `dlm` object.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Final

import dlm
from dlm.errors import InvalidRequest, needs_extra
from dlm.evals.graders.code import cut_at

KEYS: Final = ("DLM_API_KEY", "OPENAI_API_KEY")
"""Variables of the environment that may hold the server's key, the first one there is."""
SECONDS: Final = 600.0
RETRIES: Final = 2
STOPS: Final = 4
"""Stop strings that the protocol allows; at the others an answer is cut here."""
OUR_STOPS: Final = 16
"""Those that a server of dlm takes."""
STANDARD: Final = frozenset({"max_new_tokens", "temperature", "top_p", "seed", "stop"})
OUR_FIELDS: Final = frozenset({*STANDARD, "top_k", "logit_bias", "n"})
"""Options that a server of dlm has in other places than its `dlm` object."""
OWNER: Final = "dlm"
LENGTH: Final = "length"
"""The one reason for an end that the protocol shares with `dlm.Generation` besides `stop`."""
TOO_LONG: Final = ("context_length_exceeded", "context length", "max_model_len")
REFUSALS: Final = (400, 413, 422)


class Endpoint:
    """Answers by HTTP, with the face of an engine that evaluations drive.

    url: up to `/v1`
    model: None for the first one that the server has

    Raises `InvalidRequest` if no such server answers.
    """

    text = None

    def __init__(self, url: str, model: str | None = None) -> None:
        try:
            import openai
        except ImportError as error:
            raise InvalidRequest("endpoint", needs_extra("openai", "evals")) from error
        key = next((os.environ[name] for name in KEYS if os.environ.get(name)), "none")
        self.url, self._openai = url.rstrip("/"), openai
        self._live: set[Future[dlm.Generation]] = set()
        try:
            self._client = openai.OpenAI(
                base_url=self.url, api_key=key, timeout=SECONDS, max_retries=RETRIES
            )
            served = self._models()
        except openai.NotFoundError as error:
            if model is None:
                told = f"{self.url} does not report its models: name one with --model"
                raise InvalidRequest("endpoint", told) from error
            served = {model: ""}
        except Exception as error:  # of addresses, of the network, of other servers
            told = f"{self.url} does not answer as OpenAI's protocol has it: {error}"
            raise InvalidRequest("endpoint", told) from error
        if model is not None and model not in served:
            known = ", ".join(served)
            raise InvalidRequest("model", f"must be one that {url} serves ({known}), got {model!r}")
        if not served:
            raise InvalidRequest("endpoint", f"{self.url} serves no model")
        self.name = next(iter(served)) if model is None else model
        self.ours = served[self.name] == OWNER

    def _models(self) -> dict[str, str]:
        """Map the ids of the served models to their declared owners."""
        once = self._client.with_options(max_retries=0, timeout=30.0)
        return {card.id: card.owned_by or "" for card in once.models.list().data}

    def about(self) -> dict[str, Any]:
        """Describe the model for a run's header; a client knows no more than name and address."""
        unknown = dict.fromkeys(("family", "attention", "dtype", "device", "parameters", "sha256"))
        return {"name": self.name, "endpoint": self.url} | unknown

    def unsent(self, settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """The options of some settings (by name) that the server does not receive.

        Raises `InvalidRequest` if two settings differ in nothing else.
        """
        bodies: dict[str, str] = {}
        every = set[str]()
        for name, options in settings.items():
            body, _ = self._body(options)
            other = bodies.setdefault(repr(body), name)
            if other != name:
                raise InvalidRequest(
                    "config", f"{other!r} and {name!r} differ in nothing that {self.url} receives"
                )
            every |= dlm.GenerationConfig.named(options).keys() - STANDARD
            if _stops(options)[1]:
                every.add("stop rules")
        return [] if self.ours else sorted(every)

    def submit(self, prompt: str | Sequence[Mapping[str, str]], **options: Any) -> ServedRequest:
        """Ask for a text to be continued, or for the next message of a talk."""
        future = Future[dlm.Generation]()
        self._live.add(future)

        def ask() -> None:
            try:
                future.set_result(self._ask(prompt, options))
            except Exception as error:  # raised where the answer is asked for
                future.set_exception(error)

        # A thread of its own, which no interpreter waits for at its end.
        threading.Thread(target=ask, daemon=True).start()
        return ServedRequest(future)

    def step(self) -> None:
        """Wait until a request has been answered."""
        _, self._live = wait(self._live, return_when=FIRST_COMPLETED)

    def close(self) -> None:
        """Give up open requests."""
        self._client.close()

    def _ask(
        self, prompt: str | Sequence[Mapping[str, str]], options: Mapping[str, Any]
    ) -> dlm.Generation:
        begun = time.perf_counter()
        body, stops = self._body(options)
        try:
            answer, text = self._said(prompt, body)
            reason = answer.choices[0].finish_reason
            cost = (answer.model_extra or {}).get(OWNER) or {}
            nfe, computed = (int(cost.get(name, 0)) for name in ("nfe", "token_forwards"))
        except self._openai.APIError as error:
            code = f"{getattr(error, 'code', '')} {error}"
            late = getattr(error, "status_code", None) in REFUSALS
            too_long = late and any(sign in code for sign in TOO_LONG)
            param = "max_new_tokens" if too_long else "endpoint"
            raise InvalidRequest(param, f"{self.url} refuses: {error}") from error
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            told = f"{self.url} answers in another form than OpenAI's protocol: {error!r}"
            raise InvalidRequest("endpoint", told) from error
        tokens = answer.usage.completion_tokens if answer.usage else 0
        seconds = time.perf_counter() - begun
        return dlm.Generation(
            text=cut_at(text, stops),
            ids=(),
            finish_reason=LENGTH if reason == LENGTH else "stop",
            stats=dlm.Stats(nfe, tokens, computed, 0, 0, {}, {}, {}, seconds),
            prompt_ids=(),
            canvas=(),
            logprobs=(),
        )

    def _body(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Build a request's body without its prompt; also return the stop strings of its answer."""
        config = dlm.GenerationConfig.from_options(options)
        named = config.named(options)
        stops, rules = _stops(options)
        body: dict[str, Any] = {"model": self.name, "max_tokens": config.max_new_tokens}
        body["temperature"] = config.temperature
        body |= {name: named[name] for name in ("top_p", "seed") if name in named}
        if stops:
            body["stop"] = stops[: OUR_STOPS if self.ours else STOPS]
        if not self.ours:
            return body, stops
        own = {name: value for name, value in named.items() if name not in OUR_FIELDS}
        own |= {"stop": rules} if rules else {}
        body["seed"] = config.seed  # without one the server draws one
        body["logit_bias"] = {str(token): bias for token, bias in config.logit_bias.items()}
        body["extra_body"] = {OWNER: own, "top_k": config.top_k}
        return body, stops

    def _said(self, prompt: Any, body: dict[str, Any]) -> tuple[Any, str]:
        """The server's answer and its text."""
        if isinstance(prompt, str):
            answer = self._client.completions.create(prompt=prompt, **body)
            return answer, answer.choices[0].text
        if prompt[-1]["role"] == "assistant":  # begun by the prompt: to be gone on with
            more = {"continue_final_message": True, "add_generation_prompt": False}
            body["extra_body"] = body.get("extra_body", {}) | more
        talk = self._client.chat.completions.create(messages=list(prompt), **body)
        return talk, talk.choices[0].message.content or ""


def _stops(options: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """The stop strings among some options, and the stop rules."""
    config = dlm.GenerationConfig.from_options(options)
    strings = config.stop_strings()
    rules = [stop for stop in config.several("stop") if all(stop is not s for s in strings)]
    return [str(stop) for stop in strings], rules


class ServedRequest:
    """A request on its way, with the face of `dlm.Request`."""

    def __init__(self, future: Future[dlm.Generation]) -> None:
        self._future = future

    @property
    def done(self) -> bool:
        """True if the request has been answered."""
        return self._future.done()

    def ignore_events(self) -> None:
        """There are none."""

    def abort(self) -> None:
        """Nobody waits for it any more."""

    def result(self) -> dlm.Generation:
        """The answer. Raises `InvalidRequest` if the server refused."""
        return self._future.result()
