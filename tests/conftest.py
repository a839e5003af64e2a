from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# Examples are drawn anew in each run; a slow machine is no failure.
settings.register_profile("dlm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dlm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is marked `gpu` on a machine without CUDA."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items:
        import torch

        if not torch.cuda.is_available():
            for item in gpu_items:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(params=("bwrap", "unshare", "rlimit"), scope="session")
def box(request: pytest.FixtureRequest) -> object:
    """Each kind of sandbox that works on this machine."""
    from tests.boxes import box_of

    return box_of(request.param)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command; its exit code, stdout and stderr."""
    from dlm.cli.app import run

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
