"""The model `dlm` of lm-evaluation-harness: the only module that imports the harness' classes."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from tqdm import tqdm

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.harness.arguments import Arguments, read_arguments
from dlm.evals.harness.likelihood import Likelihood, Pair, log_bounds

LOG: Final = logging.getLogger(__name__)
LENGTH: Final = "max_new_tokens"
DEFAULT_DEVICE: Final = "cuda:0"
"""What the harness says where nobody has: the first CUDA device, or the CPU where there is none."""
TASK_NAMES: Final[Mapping[str, str]] = MappingProxyType({"max_gen_toks": LENGTH, "until": "stop"})
"""What the harness calls options of `engine.generate`."""


class Asked(NamedTuple):
    """A request of the harness as the engine gets it: ids to continue, and how."""

    ids: list[int]
    options: dict[str, Any]


@register_model("dlm")
class DLM(LM):  # type: ignore[misc]
    """An engine behind the harness' interface.

    `options` of `engine.generate` win over those of a task · `likelihood`: how continuations are
    scored, by a lower bound (so `is_greedy` is always False, and perplexities are upper bounds) ·
    `rows`: requests in flight · `escape_until`: a task's stop strings are ignored.
    """

    def __init__(
        self,
        engine: dlm.Engine,
        options: Mapping[str, Any] = MappingProxyType({}),
        likelihood: Likelihood | None = None,
        rows: int = 16,
        *,
        escape_until: bool = False,
    ) -> None:
        super().__init__()
        if engine.text is None:
            raise InvalidRequest("model", "came without a tokenizer, which the harness needs")
        given = dlm.GenerationConfig.named(options)
        engine.explain(**{LENGTH: 1, **given})
        self.engine, self.text = engine, engine.text
        self.options, self.rows, self.escape_until = given, rows, escape_until
        self.likelihood = likelihood or Likelihood()
        self.templated = False
        self.cut = self.canvases = self.answers = self.nfe = self.tokens = 0
        self.seconds = 0.0

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> DLM:
        """From `--model_args` as a text."""
        from lm_eval.utils import simple_parse_args_string

        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> DLM:
        """From `--model_args` as a mapping; the command's own options come beside it."""
        beside = {k: v for k, v in (additional_config or {}).items() if v is not None}
        if beside.get("device") == DEFAULT_DEVICE:
            beside["device"] = "auto"
        told: Arguments = read_arguments({**beside, **arg_dict})
        engine = dlm.load(told.source, **told.loading, max_rows=told.rows)
        how = told.likelihood
        return cls(engine, told.options, how, told.rows, escape_until=told.escape_until)

    # answers

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The texts that continue contexts, each cut at the first stop string of its task."""
        seen = Counter[str]()
        asked = []
        for request in requests:
            context, task = request.args
            asked.append(self._asked(context, task, seen[context]))
            seen[context] += 1
        texts: list[str] = []
        with tqdm(total=len(asked), disable=disable_tqdm, desc="answers") as bar:
            for request, text in zip(requests, self._texts(asked), strict=True):
                self.cache_hook.add_partial("generate_until", request.args, text)
                texts.append(text)
                bar.update()
                bar.set_postfix_str(f"{self.tokens / max(1, self.nfe):.2f} tokens a forward")
        return texts

    def _asked(self, context: str, task: Mapping[str, Any], sample: int) -> Asked:
        """One request with the options of its task, where the model was given none.

        `sample`: how many of this context were asked before; each draws with its own seed.
        """
        told = {TASK_NAMES.get(name, name): value for name, value in task.items()}
        if told.pop("do_sample", None) is False:
            told["temperature"] = 0.0
        until = told.pop("stop", None) or []
        until = [until] if isinstance(until, str) else list(until)
        options = dlm.GenerationConfig.named(told) | self.options
        found = dlm.GenerationConfig(**options)
        if until and not self.escape_until:
            options["stop"] = [*until, *found.several("stop")]
        options["seed"] = found.seed + sample
        size = self.engine.info.alignment
        room = self.engine.info.max_length // size * size - (found.max_new_tokens or 128)
        ids = self._fitting(self._ids(context), room)
        return Asked(ids or list(self.engine.info.eos_ids[:1]), options)

    def _texts(self, asked: Sequence[Asked]) -> Iterator[str]:
        """The answers in order; what waits takes the place of those that end early."""
        waiting, live = deque(asked), deque[dlm.Request]()
        try:
            while waiting or live:
                while waiting and len(live) < 2 * self.rows:
                    each = waiting.popleft()
                    request = self.engine.submit(each.ids, **each.options)
                    request.ignore_events()
                    live.append(request)
                answer = live[0].result()
                live.popleft()
                self.answers += 1
                self.nfe += answer.stats.nfe
                self.tokens += answer.stats.tokens
                self.seconds += answer.stats.seconds
                yield answer.text or ""
        finally:
            for request in live:
                request.abort()

    # likelihoods

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """A bound for each continuation of a context; the second value is not known: False."""
        pairs = [self._pair(*request.args) for request in requests]
        found = [(bound, False) for bound in self._bounds(pairs, disable_tqdm)]
        for request, each in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, each)
        return found

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """A bound for whole texts, in windows as long as the model allows that see nothing of each
        other: with it a perplexity is an upper bound.
        """
        first = self._first()
        room = self.engine.info.max_length - len(first)
        pairs, owner = [], []
        for number, request in enumerate(requests):
            ids = self.text.encode(request.args[0])
            for at in range(0, len(ids), room):
                pairs.append(Pair(first, tuple(ids[at : at + room]), _seed(request.args[0])))
                owner.append(number)
        sums = [0.0] * len(requests)
        for number, bound in zip(owner, self._bounds(pairs, disable_tqdm), strict=True):
            sums[number] += bound
        for request, each in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, each)
        return sums

    def _bounds(self, pairs: Sequence[Pair], quiet: bool) -> list[float]:
        with tqdm(disable=quiet, desc="canvases", unit="") as bar:
            before = self.canvases

            def tell(canvases: int) -> None:
                self.canvases += canvases
                bar.update(canvases)

            found = log_bounds(self.engine, pairs, self.likelihood, tell)
            LOG.info("%d bounds from %d canvases", len(pairs), self.canvases - before)
        return found

    def _pair(self, context: str, continuation: str) -> Pair:
        """Ids of both, as if they were one text; spaces between them belong to the second."""
        bare = context.rstrip() if context.strip() else context
        whole = self._ids(bare + context[len(bare) :] + continuation)
        before = self._ids(bare) if bare else []
        before = before if whole[: len(before)] == before else _shared(before, whole)
        rest = tuple(whole[len(before) :])
        room = self.engine.info.max_length - len(rest)
        kept = self._fitting(before, room) or list(self._first())
        return Pair(tuple(kept), rest, _seed(context))

    # texts and ids

    def _ids(self, context: str) -> list[int]:
        """A context as the harness writes it; with a chat template its control tokens count."""
        if self.templated:
            return self.text.vocabulary.encode(context, control=True, begin=False)
        if not context:
            return list(self._first())
        return self.text.encode_prompt(context, chat=False)

    def _first(self) -> tuple[int, ...]:
        """What stands before an empty context: an end id, where something must predict."""
        return self.engine.info.eos_ids[:1] if self.engine.info.shift else ()

    def _fitting(self, ids: list[int], room: int) -> list[int]:
        """The last ids that leave room for the rest; what is cut off is counted."""
        if len(ids) <= room:
            return ids
        if not self.cut:
            LOG.warning("a context of %d tokens is cut to its last %d", len(ids), max(0, room))
        self.cut += 1
        return ids[len(ids) - room :] if room > 0 else []

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The template's text; a last message of the assistant is one to go on with."""
        self.templated = True
        return self.text.render(chat_history)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's source."""
        self.templated = bool(chat_template)
        return self.text.vocabulary.template or ""

    @property
    def tokenizer_name(self) -> str:
        """By which the harness tells cached requests apart."""
        return self.engine.name

    def get_model_info(self) -> dict[str, Any]:
        """What goes into the results: the model, how it decoded, what that cost."""
        cost = {
            "answers": self.answers,
            "nfe": self.nfe,
            "tokens": self.tokens,
            "tokens_per_forward": self.tokens / self.nfe if self.nfe else 0.0,
            "seconds": self.seconds,
            "likelihood_canvases": self.canvases,
            "contexts_cut": self.cut,
        }
        how = {"draws": self.likelihood.draws, "cfg_scale": self.likelihood.cfg_scale}
        told = {"version": dlm.__version__, "model": self.engine.name, "likelihood": how}
        told["options"] = {name: repr(value) for name, value in self.options.items()}
        return {"dlm": told | cost}


def _shared(one: list[int], other: list[int]) -> list[int]:
    """The ids that two lists begin with."""
    pairs = zip(one, other, strict=False)
    count = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return one[:count]


def _seed(context: str) -> int:
    """By which continuations of one context share their maskings."""
    return int.from_bytes(hashlib.sha256(context.encode()).digest()[:8], "big")
