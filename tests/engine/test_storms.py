import pytest

from tests.engine.storms import Tally, storm


@pytest.mark.parametrize("seed", range(4))
def test_storms_lose_no_page_and_change_no_result(seed):
    tally = Tally()
    storm(seed, 40, tally)
    assert tally.survived
    assert not tally.differ
