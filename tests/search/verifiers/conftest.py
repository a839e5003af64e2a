from collections.abc import Iterator

import pytest

import dlm


@pytest.fixture(scope="session")
def engine() -> dlm.Engine:
    return dlm.load("tiny", device="cpu")


@pytest.fixture
def computed(engine: dlm.Engine) -> Iterator[list[int]]:
    """Rows that the model computes, call by call: each has one query at the first position."""
    rows: list[int] = []
    hook = engine.model.register_forward_hook(
        lambda _, inputs, __: rows.append(int((inputs[0].positions == 0).sum()))
    )
    yield rows
    hook.remove()
