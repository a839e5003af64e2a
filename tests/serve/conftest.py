"""One running server for all tests of clients, and the clients."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

import dlm
from tests.serve.live import PATIENCE, LiveServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The bundled model behind a socket, as `dlm serve` starts it."""
    with LiveServer(tmp_path_factory.mktemp("server")) as live:
        yield live


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test that uses the server, nothing runs there and nothing has failed."""
    yield
    if "server" in request.fixturenames:
        live = request.getfixturevalue("server")
        live.until_idle()
        faults = live.faults()  # of this test
        assert not faults


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    """OpenAI's client, which does not try again."""
    with openai.OpenAI(
        base_url=server.v1, api_key="none", max_retries=0, timeout=PATIENCE
    ) as found:
        yield found


@pytest.fixture(scope="session")
def engine() -> dlm.Engine:
    """The served model in this process."""
    return dlm.load(device="cpu")
