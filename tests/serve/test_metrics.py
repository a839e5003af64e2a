"""Metrics: their names and values, labels of fixed sets, one registry an app."""

import re

from dlm import Generation, Stats
from dlm.serve.metrics import Metrics


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
        "request_decode_time_seconds_sum": 0.5,
        "tokens_per_forward_sum": 3,
    }
    assert {name: found[f"dlm:{name}"] for name in expected} == expected
    assert 'tokens_per_forward_bucket{le="3.0"}' in "".join(found)


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
