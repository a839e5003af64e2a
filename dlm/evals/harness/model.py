"""The model `dlm` of lm-evaluation-harness: the only module that imports the harness' classes."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import lm_eval.models  # noqa: F401  (lm-eval looks for its own only while there are none)
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from tqdm import tqdm

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.harness.arguments import Arguments, read_arguments, read_task
from dlm.evals.harness.contexts import Context, read_context, stamped
from dlm.evals.harness.likelihood import Likelihood, Pair, log_bounds

LOG: Final = logging.getLogger(__name__)
DEFAULT_DEVICE: Final = "cuda:0"
"""Device by default in the harness: the first CUDA device, or the CPU if there is none."""


class Asked(NamedTuple):
    """A request of the harness as the engine gets it: ids to continue, and how."""

    ids: list[int]
    options: dict[str, Any]


@register_model("dlm")
class DLM(LM):  # type: ignore[misc]  # lm-eval has no types
    """An engine with the harness' interface.

    options: of `engine.generate`; they win over those of a task
    likelihood: the scoring of continuations, by a lower bound (so `is_greedy` is always False, and
        perplexities are upper bounds)
    rows: requests in flight
    escape_until: True to ignore a task's stop strings
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
        engine.explain(**given)
        self.engine, self.text = engine, engine.text
        self.hide = self.text.vocabulary.marker.hide
        self.options, self.rows, self.escape_until = given, rows, escape_until
        self.likelihood = likelihood or Likelihood()
        self.cut = self.canvases = self.answers = self.nfe = self.tokens = 0
        self.request_seconds = 0.0

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
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            LOG.warning("every process evaluates everything: start one, with a larger batch_size")
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
        of_task, until = read_task(task)
        options = of_task | self.options
        found = dlm.GenerationConfig(**options)
        if found.temperature > 0 and not task.get("do_sample"):
            self._must_not_be_kept()
        if until and not self.escape_until:
            options["stop"] = [*map(dlm.StopString, until), *found.several("stop")]
        options["seed"] = found.seed + sample
        size = self.engine.info.alignment
        room = self.engine.info.max_length // size * size - (found.max_new_tokens or 0)
        ids = self._fitting(self._ids(context), room)
        return Asked(ids or list(self.engine.info.eos_ids[:1]), options)

    def _must_not_be_kept(self) -> None:
        """Refuse the harness' store of answers, which keeps one of each context, for drawn ones."""
        if getattr(self.cache_hook, "dbdict", None) is not None:
            raise InvalidRequest(
                "use_cache", "keeps one answer of each context, and these are drawn at random"
            )

    def _texts(self, requests: Sequence[Asked]) -> Iterator[str]:
        """The answers in order; what waits takes the place of those that end early."""
        waiting, live = deque(requests), deque[dlm.Request]()
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
                self.request_seconds += answer.stats.seconds
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

        def keep(number: int, bound: float) -> None:
            self.cache_hook.add_partial("loglikelihood", requests[number].args, (bound, False))

        return [(bound, False) for bound in self._bounds(pairs, disable_tqdm, keep)]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """A bound for whole texts, in windows as long as the model allows that see nothing of each
        other: with it a perplexity is an upper bound.
        """
        first = tuple(self._ids(""))
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

    def _bounds(
        self,
        pairs: Sequence[Pair],
        quiet: bool,
        keep: Callable[[int, float], None] = lambda number, bound: None,
    ) -> list[float]:
        """The bound of each pair; `keep` hears of each as soon as it is known."""
        found = [0.0] * len(pairs)
        with tqdm(total=len(pairs), disable=quiet, desc="continuations") as bar:
            for number, bound, canvases in log_bounds(self.engine, pairs, self.likelihood):
                found[number] = bound
                self.canvases += canvases
                keep(number, bound)
                bar.update()
        return found

    def _pair(self, context: str, continuation: str) -> Pair:
        """Ids of both, as if they were one text; spaces between them belong to the second."""
        given = read_context(context, self.hide)
        before = self._encoded(given.stripped())
        whole = self._encoded(given.followed_by(continuation, self.hide))
        if not context:
            whole = [*before, *self.text.encode(continuation)]
        before = _shared(before, whole)
        rest = tuple(whole[len(before) :])
        kept = self._fitting(before, self.engine.info.max_length - len(rest))
        return Pair(tuple(kept), rest, _seed(context))

    # texts and ids

    def _ids(self, context: str) -> list[int]:
        """The ids of a context as the harness writes it."""
        return self._encoded(read_context(context, self.hide))

    def _encoded(self, context: Context) -> list[int]:
        """Its ids: for a chat those of `encode_prompt`. Where something must predict the first id,
        an end id precedes an empty context.
        """
        if context.chat:
            return self.text.vocabulary.encode_marked(context.text)
        ids = self.text.encode_prompt(context.text, chat=False)
        return ids or list(self.engine.info.eos_ids[: int(self.engine.info.shift)])

    def _fitting(self, ids: list[int], room: int) -> list[int]:
        """The last ids that leave room for the rest, after what begins a text; cuts are counted."""
        if len(ids) <= room:
            return ids
        if not self.cut:
            LOG.warning("a context of %d tokens is cut to its last %d", len(ids), max(0, room))
        self.cut += 1
        begin = self._ids("")
        begin = begin if ids[: len(begin)] == begin and len(begin) < room else []
        return [*begin, *ids[len(ids) - room + len(begin) :]] if room > 0 else []

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The template's text, stamped as such; a last message of the assistant is one to go on
        with.
        """
        return stamped(self.text.render_marked(chat_history))

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's source."""
        return self.text.vocabulary.template or ""

    @property
    def tokenizer_name(self) -> str:
        """By which the harness tells cached requests apart."""
        return self.engine.name

    def get_model_info(self) -> dict[str, Any]:
        """Describe the model, its decoding options and their cost for the harness' results."""
        cost = {
            "answers": self.answers,
            "nfe": self.nfe,
            "tokens": self.tokens,
            "tokens_per_forward": self.tokens / self.nfe if self.nfe else 0.0,
            "request_seconds": self.request_seconds,
            "likelihood_canvases": self.canvases,
            "contexts_cut": self.cut,
        }
        weight = self.engine.model.embedding.weight
        told = {
            "version": dlm.__version__,
            "model": self.engine.name,
            "dtype": str(weight.dtype),
            "device": str(weight.device),
            "rows": self.rows,
            "escape_until": self.escape_until,
            "likelihood": asdict(self.likelihood),
            "options": {name: repr(value) for name, value in self.options.items()},
        }
        return {"dlm": told | cost}


def _shared(one: list[int], other: list[int]) -> list[int]:
    """The ids that two lists begin with."""
    pairs = zip(one, other, strict=False)
    count = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return one[:count]


def _seed(context: str) -> int:
    """By which continuations of one context share their maskings."""
    return int.from_bytes(hashlib.sha256(context.encode()).digest()[:8], "big")
