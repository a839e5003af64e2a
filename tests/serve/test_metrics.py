"""Metrics: their names and values, labels of fixed sets, one registry an app."""

import asyncio
import re

import dlm
from dlm import Generation, Stats
from dlm.serve.metrics import FORWARDS, Metrics


def values(metrics):
    """Every sample: its name with labels -> its value; without times of creation."""
    lines = metrics.render().decode().splitlines()
    found = (re.fullmatch(r"(\S+?(?:\{.*\})?) (\S+)", line) for line in lines if line[0] != "#")
    return {m[1]: float(m[2]) for m in found if not m[1].split("{")[0].endswith("_created")}


def generation(reason="stop", **forwards):
    stats = Stats(
        nfe=4,
        tokens=12,
        token_forwards=64,
        arm_forwards=2,
        idle_forwards=0,
        forwards={name.replace("_", " "): count for name, count in forwards.items()},
        aux_forwards={"ar": 3, "other": 1},
        aux_tokens={},
        seconds=0.5,
        reused=3,
        changes={"commit": 12, "block": 2},
        block_lengths={8: 1, 4: 1},
        first_seconds=0.125,
        settled=((0.125, 4), (0.25, 5), (0.5, 2)),
    )
    return Generation("text", (1, 2), reason, stats, (7,) * 5, (), ())


def test_an_answer_is_counted():
    metrics = Metrics()
    metrics.accepted("/v1/completions", 5, 2, 20)
    metrics.first_text(0.2)
    metrics.finished(generation(step=2, refresh_step=1, store_step=1), 1.5, 1.0)
    found = values(metrics)
    expected = {
        'requests_total{route="/v1/completions"}': 1,
        "prompt_tokens_total": 5,
        "generation_tokens_total": 12,
        'request_success_total{finished_reason="stop"}': 1,
        'forward_passes_total{kind="step"}': 4,
        'forward_passes_total{kind="refresh"}': 1,
        'forward_passes_total{kind="store"}': 1,
        "nfe_total": 4,
        "guidance_forwards_total": 2,
        "aux_forwards_total": 4,
        "cache_refresh_total": 1,
        "token_forwards_total": 64,
        "prefix_cache_queries_total": 5,
        "prefix_cache_hits_total": 3,
        "request_prompt_tokens_sum": 5,
        "request_generation_tokens_sum": 12,
        "request_params_n_sum": 2,
        "request_params_max_tokens_sum": 20,
        "time_to_first_token_seconds_sum": 0.2,
        "e2e_request_latency_seconds_sum": 1.5,
        "request_queue_time_seconds_sum": 1.0,
        "request_inference_time_seconds_sum": 0.5,
        "request_prefill_time_seconds_sum": 0.125,
        "request_decode_time_seconds_sum": 0.375,
        "inter_token_latency_seconds_sum": 0.375,  # from the first tokens to the last
        "inter_token_latency_seconds_count": 7,
        'inter_token_latency_seconds_bucket{le="0.025"}': 5,
        "block_length_sum": 12,
        "block_length_count": 2,
        "unmasked_tokens_total": 12,
        "tokens_per_forward_sum": 3,
    }
    assert {name: found[f"dlm:{name}"] for name in expected} == expected
    assert 'tokens_per_forward_bucket{le="3.0"}' in "".join(found)


def test_a_forward_that_rows_share_has_a_purpose():
    metrics = Metrics()
    metrics.finished(generation(shared=1, step=3, strange_step=1), 1.5, 1.0)
    found = values(metrics)
    kinds = {kind: found.get(f'dlm:forward_passes_total{{kind="{kind}"}}') for kind in FORWARDS}
    assert {kind: count for kind, count in kinds.items() if count} == {"shared": 1, "step": 4}
    assert found['dlm:forward_passes_total{kind="other"}'] == 1


def test_every_purpose_of_a_search_is_known():
    """Rows that begin alike share their first forward."""
    engine = dlm.load(device="cpu")
    found = engine.search([1, 2], "best_of(3)", max_new_tokens=8, temperature=1.0)
    purposes = {kind for one in found.candidates for kind in one.answer.stats.forwards}
    assert "shared" in purposes
    assert {kind for purpose in purposes for kind in purpose.split()} <= FORWARDS


def test_a_search_counts_what_its_answer_does_not():
    metrics, costs = Metrics(), dlm.SearchCosts(nfe=10, token_forwards=100)
    metrics.searched(costs, 3, 0.5, generation().stats)
    metrics.searched(costs, 0, 0.25, None)
    found = values(metrics)
    assert found["dlm:search_candidates_total"] == 3
    assert found["dlm:search_budget_used_ratio_sum"] == 0.75
    assert found["dlm:nfe_total"] == 10 - 4 + 10
    assert found["dlm:token_forwards_total"] == 100 - 64 + 100


def test_an_answer_without_a_step_has_no_times_of_steps():
    metrics, nothing = Metrics(), Stats(0, 0, 0, 0, 0, {}, {}, {}, 0.0)
    metrics.finished(Generation("", (), "abort", nothing, (1,), (), ()), 1.0, 1.0)
    found = values(metrics)
    assert found["dlm:request_inference_time_seconds_count"] == 1
    for name in ("request_prefill_time", "request_decode_time", "inter_token_latency"):
        assert found[f"dlm:{name}_seconds_count"] == 0


def test_steps_of_the_engine_are_observed():
    """Those of two answers that are decoded together, by the positions of both."""
    metrics = Metrics()

    async def decode():
        engine = dlm.load(device="cpu")
        async with dlm.AsyncEngine(engine, on_step=metrics.stepped) as served:
            handles = [served.submit([1, 2], max_new_tokens=8, stop="none") for _ in range(2)]
            return [await handle.result() for handle in handles]

    answers = asyncio.run(decode())
    found = values(metrics)
    total = sum(answer.stats.token_forwards for answer in answers)
    steps = [answer.stats.nfe for answer in answers]
    assert found["dlm:iteration_tokens_total_sum"] == total
    assert max(steps) <= found["dlm:iteration_tokens_total_count"] <= sum(steps)


def test_the_names_of_the_metrics():
    """Dashboards depend on them."""
    names = {name.split("{")[0].removeprefix("dlm:") for name in values(Metrics())}
    gauges = {"num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "build_info"}
    counters = {
        "prompt_tokens",
        "generation_tokens",
        "prefix_cache_queries",
        "prefix_cache_hits",
        "unmasked_tokens",
        "cache_refresh",
        "client_disconnects",
    }
    histograms = {
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "e2e_request_latency_seconds",
        "request_queue_time_seconds",
        "request_inference_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
        "request_prompt_tokens",
        "request_generation_tokens",
        "request_params_n",
        "request_params_max_tokens",
        "iteration_tokens_total",
        "tokens_per_forward",
        "denoise_steps_per_block",
        "block_length",
    }
    assert gauges <= names
    assert {f"{name}_total" for name in counters} <= names
    assert {f"{name}_count" for name in histograms} <= names


def test_faults_and_refusals_are_counted():
    metrics = Metrics()
    metrics.failed()
    metrics.rejected("queue_full")
    metrics.disconnected()
    metrics.responded("GET", "/health", 200, 0.01)
    found = values(metrics)
    assert found["dlm:request_failures_total"] == 1
    assert found['dlm:admission_rejections_total{reason="queue_full"}'] == 1
    assert found["dlm:client_disconnects_total"] == 1
    assert found['dlm:http_requests_total{method="GET",route="/health",status="200"}'] == 1
    assert found['dlm:http_request_duration_seconds_count{route="/health"}'] == 1


def test_gauges_are_read_when_asked():
    rows = [3, 9, 0.25]
    metrics = Metrics(
        running=lambda: rows[0], waiting=lambda: rows[1], kv_usage=lambda: rows[2], model="tiny"
    )
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    for expected in ([3, 9, 0.25], [0, 1, 0.5]):
        rows[:] = expected
        found = values(metrics)
        assert [found[f"dlm:{name}"] for name in names] == expected
    (build,) = (name for name in found if name.startswith("dlm:build_info"))
    assert 'model="tiny"' in build


def test_labels_are_of_fixed_sets():
    metrics = Metrics()
    for number in range(50):
        metrics.finished(generation(f"reason {number}", **{f"kind{number}": 1}), 1, 0)
        metrics.rejected(f"reason {number}")
        metrics.responded(f"METHOD{number}", "other", 404, 0.1)
    found = values(metrics)
    assert found['dlm:request_success_total{finished_reason="other"}'] == 50
    assert found['dlm:forward_passes_total{kind="other"}'] == 50
    assert found['dlm:admission_rejections_total{reason="other"}'] == 50
    assert found['dlm:http_requests_total{method="other",route="other",status="404"}'] == 50


def test_two_apps_share_nothing():
    one, other = Metrics(), Metrics()
    one.failed()
    assert values(other)["dlm:request_failures_total"] == 0
    assert one.registry is not other.registry
