"""`Metrics`: counters, histograms and gauges of one server, for Prometheus.

Names that vLLM has too mean the same here, so that its dashboards can be used with `dlm:` in place
of `vllm:`.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from dlm import Generation, SearchCosts, Stats, __version__

OTHER: Final = "other"
SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TOKENS: Final = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768, 131072)
RATES: Final = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
GAPS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LAGS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
COUNTS: Final = (1, 2, 4, 8, 16)
SHARES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
REASONS: Final = frozenset(
    {"stop", "length", "abort", "early", "budget", "error", "max_nfe", "max_seconds"}
)
REJECTIONS: Final = frozenset({"queue_full", "draining", "too_long", "unavailable"})
FORWARDS: Final = frozenset(
    {"step", "prefill", "refresh", "store", "verify", "shared", "decide", "score"}
)
CHANGES: Final = ("remask", "replace", "renoise")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MEASURED_EVERY: Final = 0.1
"""Seconds between two looks at the lag of the event loop."""


class Metrics:
    """Measures one server, in a registry of its own.

    Every method is cheap and safe to call from any thread. Labels take values of fixed sets: what
    is not among them is "other".

    running, waiting: give the answers that are decoded, and those that wait, when asked
    kv_usage: gives the used share of the keys' and values' memory, 0 to 1, when asked
    model: name of the model
    """

    def __init__(
        self,
        *,
        running: Callable[[], float] = lambda: 0,
        waiting: Callable[[], float] = lambda: 0,
        kv_usage: Callable[[], float] = lambda: 0,
        model: str = "",
    ) -> None:
        self.registry = CollectorRegistry()
        self._gauge("num_requests_running", "Answers that are decoded.", running)
        self._gauge("num_requests_waiting", "Answers that wait for a place.", waiting)
        self._gauge("kv_cache_usage_perc", "Used share of the keys' and values' memory.", kv_usage)
        build = Info("dlm:build", "Versions.", registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version(), "model": model})
        self._of_requests()
        self._of_decoding()
        self._of_searches()
        self._of_http()

    def _of_requests(self) -> None:
        self._accepted = self._counter("requests", "Requests that were taken.", ["route"])
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of accepted prompts.")
        self._generation_tokens = self._counter("generation_tokens", "Tokens of the answers.")
        self._success = self._counter("request_success", "Ended answers.", ["finished_reason"])
        self._failures = self._counter("request_failures", "Requests that failed by a fault.")
        self._rejections = self._counter(
            "admission_rejections", "Requests that were not taken.", ["reason"]
        )
        self._disconnects = self._counter("client_disconnects", "Clients that left early.")
        self._prompt = self._histogram("request_prompt_tokens", "Tokens of a prompt.", TOKENS)
        self._generated = self._histogram(
            "request_generation_tokens", "Tokens of an answer.", TOKENS
        )
        self._n = self._histogram("request_params_n", "Answers asked for at once.", COUNTS)
        self._max_tokens = self._histogram(
            "request_params_max_tokens", "Longest answer asked for.", TOKENS
        )
        self._first_text = self._histogram(
            "time_to_first_token_seconds", "From the request to its first text.", SECONDS
        )
        self._latency = self._histogram(
            "e2e_request_latency_seconds", "From the request to the end of an answer.", SECONDS
        )
        self._queued = self._histogram(
            "request_queue_time_seconds", "Wait of an answer for its place.", SECONDS
        )
        self._inference = self._histogram(
            "request_inference_time_seconds", "From the place of an answer to its end.", SECONDS
        )
        self._prefill = self._histogram(
            "request_prefill_time_seconds",
            "From the place of an answer to the end of its first step: the reading of the prompt.",
            SECONDS,
        )
        self._decode = self._histogram(
            "request_decode_time_seconds",
            "From the end of the first step of an answer to its end.",
            SECONDS,
        )
        self._gaps = self._histogram(
            "inter_token_latency_seconds",
            "Each token: the time between its settling and that of tokens before, by the number of "
            "tokens that settled with it.",
            GAPS,
        )

    def _of_decoding(self) -> None:
        self._forwards = self._counter(
            "forward_passes", "Forwards by their purpose; fused ones by all.", ["kind"]
        )
        self._nfe = self._counter(
            "nfe", "Forwards of answers, searches, decisions and scores; fused ones count once."
        )
        self._arms = self._counter("guidance_forwards", "Further model inputs of guidance.")
        self._aux = self._counter("aux_forwards", "Forwards of auxiliary models.")
        self._refreshes = self._counter("cache_refresh", "Forwards that renewed stored keys.")
        self._token_forwards = self._counter(
            "token_forwards", "Positions computed, but for scores."
        )
        self._iteration = self._histogram(
            "iteration_tokens_total", "Positions that a step of the engine has computed.", TOKENS
        )
        self._rate = self._histogram("tokens_per_forward", "Tokens a forward, by answer.", RATES)
        self._unmasked = self._counter("unmasked_tokens", "Positions committed.")
        self._remasked = self._counter(
            "remasked_tokens", "Positions opened again, overwritten or redrawn.", ["change"]
        )
        self._blocks = self._counter("blocks", "Blocks that were opened.")
        self._block_length = self._histogram("block_length", "Positions of a block.", TOKENS)
        self._block_steps = self._histogram(
            "denoise_steps_per_block", "Forwards a block, by answer.", TOKENS
        )
        self._queries = self._counter("prefix_cache_queries", "Tokens of prompts looked up.")
        self._hits = self._counter("prefix_cache_hits", "Tokens of prompts whose keys were there.")

    def _of_searches(self) -> None:
        self._candidates = self._counter("search_candidates", "Finished answers of searches.")
        self._budgets = self._histogram(
            "search_budget_used_ratio", "Forwards of a search, of those in its budget.", SHARES
        )

    def _of_http(self) -> None:
        self._responses = self._counter(
            "http_requests", "HTTP requests that were answered.", ["method", "route", "status"]
        )
        self._response_time = self._histogram(
            "http_request_duration_seconds",
            "From the request to the last byte.",
            SECONDS,
            ["route"],
        )
        self._lag = self._histogram(
            "event_loop_lag_seconds", "Delay of what the event loop was to do at a time.", LAGS
        )
        self._gauge("event_loop_tasks", "Tasks of the event loop.", tasks_here)

    def accepted(self, route: str, prompt_tokens: int, n: int, max_tokens: int) -> None:
        """Count a request that is taken: n answers of up to `max_tokens` to one prompt."""
        self._accepted.labels(route).inc()
        self._prompt_tokens.inc(prompt_tokens)
        self._prompt.observe(prompt_tokens)
        self._n.observe(n)
        self._max_tokens.observe(max_tokens)

    def first_text(self, seconds: float) -> None:
        """Observe the time from a request to its first text."""
        self._first_text.observe(seconds)

    def finished(self, generation: Generation, seconds: float, queued: float) -> None:
        """Count one answer: its costs, the seconds since its request came, and those it waited."""
        stats, reason = generation.stats, generation.finish_reason
        self._success.labels(among(reason, REASONS)).inc()
        self._latency.observe(seconds)
        self._queued.observe(queued)
        self._observe_times(stats)
        self._generation_tokens.inc(stats.tokens)
        self._generated.observe(stats.tokens)
        for purpose, count in stats.forwards.items():
            for kind in purpose.split():
                self._forwards.labels(among(kind, FORWARDS)).inc(count)
            self._refreshes.inc(count if "refresh" in purpose.split() else 0)
        self._nfe.inc(stats.nfe)
        self._arms.inc(stats.arm_forwards)
        self._aux.inc(sum(stats.aux_forwards.values()))
        self._token_forwards.inc(stats.token_forwards)
        self._rate.observe(stats.tokens_per_forward)
        self._count_changes(stats)
        self._queries.inc(len(generation.prompt_ids))
        self._hits.inc(stats.reused)

    def searched(
        self, costs: SearchCosts, candidates: int, used: float, answer: Stats | None
    ) -> None:
        """Count a search: its candidates, the share of its budget that it used, and its forwards
        but for those of the `answer` that was counted, if there is one.
        """
        self._candidates.inc(candidates)
        self._budgets.observe(used)
        nfe, positions = (0, 0) if answer is None else (answer.nfe, answer.token_forwards)
        self._nfe.inc(max(costs.nfe - nfe, 0))
        self._token_forwards.inc(max(costs.token_forwards - positions, 0))

    def computed(self, kind: str, nfe: int, positions: int = 0) -> None:
        """Count forwards that made no answer: those of decisions (`decide`) and of the
        log-probabilities of given texts (`score`).
        """
        self._forwards.labels(among(kind, FORWARDS)).inc(nfe)
        self._nfe.inc(nfe)
        self._token_forwards.inc(positions)

    def _observe_times(self, stats: Stats) -> None:
        self._inference.observe(stats.seconds)
        if stats.first_seconds:  # it has not ended before its first step
            self._prefill.observe(stats.first_seconds)
            self._decode.observe(max(stats.seconds - stats.first_seconds, 0.0))
        for (before, _), (now, tokens) in pairwise(stats.settled):
            for _ in range(tokens):
                self._gaps.observe((now - before) / tokens)

    def _count_changes(self, stats: Stats) -> None:
        changes = stats.changes
        self._unmasked.inc(changes.get("commit", 0))
        for change in CHANGES:
            self._remasked.labels(change).inc(changes.get(change, 0))
        for length, count in stats.block_lengths.items():
            for _ in range(count):
                self._block_length.observe(length)
        if blocks := changes.get("block", 0):
            self._blocks.inc(blocks)
            self._block_steps.observe(stats.nfe / blocks)

    def stepped(self, positions: int) -> None:
        """Observe a step of the engine, of all rows, by the positions that it has computed."""
        if positions:
            self._iteration.observe(positions)

    def failed(self) -> None:
        """Count a request that failed by a fault of the server or of a part."""
        self._failures.inc()

    def rejected(self, reason: str) -> None:
        """Count a request that is not taken: `queue_full`, `draining`, `too_long`, ..."""
        self._rejections.labels(among(reason, REJECTIONS)).inc()

    def disconnected(self) -> None:
        """Count a client that left before its answer had ended."""
        self._disconnects.inc()

    def responded(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request; `route` is a template of the app, or "other"."""
        self._responses.labels(among(method, METHODS), route, str(status)).inc()
        self._response_time.labels(route).observe(seconds)

    async def watch_loop(self, every: float = MEASURED_EVERY) -> None:
        """Measure the lag of the running event loop until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + every
            await asyncio.sleep(every)
            self._lag.observe(max(0.0, clock() - due))

    def render(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(f"dlm:{name}", text, registry=self.registry).set_function(read)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"dlm:{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(f"dlm:{name}", text, labels, buckets=buckets, registry=self.registry)


def tasks_here() -> int:
    """Count the tasks of the running event loop; 0 where none runs."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0


def among(value: str, known: Collection[str]) -> str:
    """`value` if it is known, else "other": labels may not grow without bound."""
    return value if value in known else OTHER
