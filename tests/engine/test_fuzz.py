"""A short run of the fuzz, and what its long runs have found."""

import pytest

from dlm.errors import InvalidRequest
from tests.engine.fuzz import fuzz
from tests.engine.harness import Bench
from tests.helpers import DEVICES, random_decoder, tiny_spec


@pytest.mark.parametrize("device", DEVICES)
def test_blind_configurations_are_refused_or_keep_every_promise(device):
    tally = fuzz(250, 1, device)
    assert tally.decoded + tally.refused.total() == 250
    assert tally.decoded > 50


@pytest.mark.parametrize("blocks", ["sub_blocks(8, sub=2)", "sliding(3)"])
def test_an_editor_of_the_row_needs_whole_blocks(blocks):
    """It would reopen in every step all that the narrowed block has filled, without an end."""
    bench = Bench(random_decoder(tiny_spec()))
    options = {"unmask": "everything", "edit": "rcr(schedule='even')", "cache": "none"}
    with pytest.raises(InvalidRequest, match="offers some of them in each step"):
        bench.state([3, 4], max_new_tokens=18, blocks=blocks, **options)
    assert bench.decode([3, 4], max_new_tokens=18, blocks="fixed(9)", **options)
