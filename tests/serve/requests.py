"""Random requests of all kinds: the body for the server beside the call of the engine."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dlm
from dlm.evals.tasks import TASKS
from dlm.evals.tasks.mix import sample

PRESETS = ("fast", "leap", "adaptive", "quality")
UNMASK = (
    "threshold(0.7)",
    "factor",
    "leap",
    "hierarchical",
    "entropy_bound(0.2)",
    "low_entropy",
    "klass",
    "running_mean",
    "topk",
    "topk('margin')",
    "topk('entropy', steps=8)",
    "dynamic(0.8)",
    "slowfast",
    "ancestral(steps=12)",
)
BLOCKS = ("fixed(16)", "fixed(32)", "whole", "sliding(12)", "adaptive", "pipeline(16)")
CACHES = ("none", "prefix", "dual", "vicinity", "freecache", "delayed", "delayed_blocks")
EDITS = ("rcr", "rewrite(0.9)")
GUIDES = ("cfg(0.5)", "bias([(11, 2.0), (20, -1.5)])", "forbid((9, 12), before=6)")
STOPS = ("prophet", "stable", "max_nfe(6)")
MODES = ("whole", "stream", "events", "diffusing")


@dataclass(frozen=True)
class Asked:
    """One request in both forms.

    path, body: over HTTP
    prompt, options: for `engine.generate`
    mode: `whole`, or the kind of stream
    """

    path: str
    body: Mapping[str, Any]
    prompt: Any
    options: Mapping[str, Any]
    mode: str


def random_requests(engine: dlm.Engine, count: int, seed: int) -> list[Asked]:
    """Requests that the engine takes, drawn from all of its parts."""
    rng, found = random.Random(seed), list[Asked]()
    while len(found) < count:
        asked = _draw(rng, engine, MODES[len(found) % len(MODES)])
        try:
            engine.prepare(asked.prompt, dlm.GenerationConfig.from_options(asked.options))
        except dlm.InvalidRequest:
            continue  # parts that do not go together
        found.append(asked)
    return found


def _draw(rng: random.Random, engine: dlm.Engine, mode: str) -> Asked:
    text = sample(rng, "test", rng.choice(TASKS)).prompt
    own = _parts(rng)
    options: dict[str, Any] = dict(own)
    body: dict[str, Any] = {"model": "tiny", "return_token_ids": True, "dlm": own}
    _sampling(rng, options, body)
    if rng.random() < 0.15:
        own["infill"] = options["infill"] = rng.choice(
            ["[[mask:12]]=17", "so [[mask:6]] and [[mask:9]].", {"10": " = "}, [None] * 8 + [12, 9]]
        )
    if rng.random() < 0.9 or isinstance(own.get("infill"), dict):
        options["max_new_tokens"] = body["max_tokens"] = rng.randint(8, 40)
        if isinstance(own.get("infill"), str | list):
            del options["max_new_tokens"], body["max_tokens"]
    if isinstance(own.get("infill"), dict):
        options["infill"] = {int(at): given for at, given in own["infill"].items()}
        body["max_tokens"] = options["max_new_tokens"] = rng.randint(16, 40)
    if mode == "events":
        body["dlm"] = {**own, "events": True}
    body |= {"stream": True} if mode != "whole" else {}
    body |= {"diffusing": True} if mode == "diffusing" else {}
    path, prompt = _prompt(rng, engine, text, body)
    if path == "/v1/completions" and "max_tokens" not in body and "infill" not in own:
        options["max_new_tokens"] = 16  # OpenAI's default
    return Asked(path, body, prompt, options, mode)


def _prompt(
    rng: random.Random, engine: dlm.Engine, text: str, body: dict[str, Any]
) -> tuple[str, str | Sequence[Any]]:
    """Put a prompt into the body; the path, and the prompt for the engine."""
    kind = rng.choice(("chat", "talk", "text", "ids"))
    if kind in ("chat", "talk"):
        talk = [{"role": "user", "content": text}]
        if kind == "talk":
            answer = {"role": "assistant", "content": "Well, let me see."}
            talk = [*talk, answer, {"role": "user", "content": "12+5=?"}]
        body["messages"] = talk
        return "/v1/chat/completions", talk
    assert engine.text is not None
    ids = list(engine.text.encode_prompt(text, chat=False))
    body["prompt"] = text if kind == "text" else ids
    return "/v1/completions", ids


def _parts(rng: random.Random) -> dict[str, Any]:
    """Options of the `dlm` object."""
    if rng.random() < 0.25:
        return {"preset": rng.choice(PRESETS)}
    if rng.random() < 0.1:
        return {"preset": "revise", "steps": rng.randint(4, 16)}
    own: dict[str, Any] = {"unmask": rng.choice(UNMASK), "blocks": rng.choice(BLOCKS)}
    if rng.random() < 0.7:
        own["cache"] = rng.choice(CACHES)
    if rng.random() < 0.15:
        own["edit"] = rng.choice(EDITS)
    if rng.random() < 0.2:
        own["guide"] = rng.choice(GUIDES)
    if rng.random() < 0.15:
        own["stop"] = ["eos", rng.choice(STOPS)]
    return own


def _sampling(rng: random.Random, options: dict[str, Any], body: dict[str, Any]) -> None:
    """Set what OpenAI has fields for."""
    shared: dict[str, Any] = {"seed": rng.getrandbits(40)}
    if rng.random() < 0.5:
        shared["temperature"] = rng.choice((0.4, 0.8, 1.0))
        shared |= {"top_p": 0.9} if rng.random() < 0.4 else {}
        shared |= {"top_k": 20} if rng.random() < 0.3 else {}
    if rng.random() < 0.2:
        shared["n"] = rng.randint(2, 4)
    options |= shared
    body |= shared
    if rng.random() < 0.2:
        strings = rng.sample(["=", "the", ". ", "7", "return"], 2)
        body["stop"] = strings
        options["stop"] = [*options.get("stop", []), *strings]
    if rng.random() < 0.1:
        body["logit_bias"] = {"17": 3.5, "30": -100}
        options["logit_bias"] = {17: 3.5, 30: -100}
