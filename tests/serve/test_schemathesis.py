"""Requests made up from /openapi.json: none is a server's error.

200 of them; `DLM_SCHEMA_CASES=5000` makes it more.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")

from schemathesis import GenerationMode  # noqa: E402  (after the check)

from tests.serve.live import PATIENCE, LiveServer  # noqa: E402

CASES = int(os.environ.get("DLM_SCHEMA_CASES", "200"))
FLAGS = ("--max-canvas", "64", "--max-new-tokens", "8", "--max-rows", "8")
"""Answers are short, so that the server's part is most of the work."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with LiveServer(tmp_path_factory.mktemp("schema"), *FLAGS) as live:
        yield live


@pytest.mark.slow
def test_no_request_is_a_fault_of_the_server(small):
    schema = schemathesis.openapi.from_url(f"{small.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 20
    statuses = {}
    kinds = [
        operation.as_strategy(generation_mode=mode)
        for operation in operations
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if mode is GenerationMode.POSITIVE or operation.body
    ]

    @settings(max_examples=CASES, suppress_health_check=list(HealthCheck), database=None)
    @given(case=st.one_of(kinds))
    def send(case):
        answer = case.call(timeout=PATIENCE)
        status = answer.status_code
        statuses[status] = statuses.get(status, 0) + 1
        assert status < 500, answer.text
        assert status < 400 or set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert "Traceback" not in answer.text

    send()
    print(f"answers by status: {statuses}")
    assert sum(statuses.values()) >= CASES * 0.9
    assert {200, 400} <= set(statuses)
    small.until_idle()
    assert not small.faults()
