"""The kinds of sandbox that tests run in."""

import os

import pytest

from dlm.errors import InvalidRequest
from dlm.sandbox import Sandbox, find_sandbox


def box_of(kind: str) -> Sandbox:
    """A sandbox of a kind; skips the test where it does not work here.

    The kinds that `DLM_TEST_SANDBOXES` names, with commas between them, must work: their tests fail
    instead.
    """
    try:
        return find_sandbox(kind)
    except InvalidRequest:
        if kind in os.environ.get("DLM_TEST_SANDBOXES", "").split(","):
            pytest.fail(f"{kind} must work here, and does not")
        pytest.skip(f"{kind} does not work here")
