"""`max_token_forwards`: no forward computes more positions, and results stay the same."""

import pytest

from dlm import Engine
from dlm.engine.live import runs_within
from dlm.errors import InvalidRequest
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPTS = [tuple(range(3, 3 + n)) for n in (2, 9, 4, 17, 6, 3, 12)]
OPTIONS = {"max_new_tokens": 20, "unmask": "threshold(0.6)", "blocks": "fixed(5)", "stop": "none"}


class Spy:
    """A decoder that remembers how many positions each forward computed."""

    def __init__(self, decoder):
        self.decoder, self.sizes = decoder, []

    def __call__(self, packed, kv):
        self.sizes.append(len(packed.ids))
        return self.decoder(packed, kv)


def engine_of(**options):
    spec = tiny_spec()
    engine = Engine(random_decoder(spec), info_of(spec), **options)
    engine.manager.model = Spy(engine.model)
    return engine


@pytest.mark.parametrize("cache", ["none", "dual"])
@pytest.mark.parametrize("most", [40, 64, 100])
def test_no_forward_is_larger(cache, most):
    free, bounded = engine_of(), engine_of(max_token_forwards=most)
    theirs, ours = (e.generate(PROMPTS, **OPTIONS, cache=cache) for e in (free, bounded))
    assert max(bounded.manager.model.sizes) <= most < max(free.manager.model.sizes)
    assert [a.canvas for a in ours] == [a.canvas for a in theirs]
    assert sum(bounded.manager.model.sizes) == sum(free.manager.model.sizes)
    assert bounded.kv.pages.in_use == 0


def test_small_steps_share_a_forward():
    """Rows that were divided for a refresh go together again where they are small."""
    engine = engine_of(max_token_forwards=40)
    engine.generate(PROMPTS[:4], **OPTIONS, cache="dual")
    sizes = engine.manager.model.sizes
    assert any(size in (10, 15, 20) for size in sizes), "two to four blocks of 5"


def test_what_can_never_fit_is_refused():
    engine = engine_of(max_token_forwards=30)
    with pytest.raises(
        InvalidRequest, match=r"37 positions in 1 inputs does not fit .* at most 30"
    ):
        engine.generate(PROMPTS[3], **OPTIONS)
    with pytest.raises(InvalidRequest, match="must be None or an integer of at least 1, got 0"):
        engine_of(max_token_forwards=0)


def test_runs_are_as_long_as_they_may_be():
    assert runs_within([5, 5, 5], 10) == [[0, 1], [2]]
    assert runs_within([12, 1, 9], 10) == [[0], [1, 2]]
    assert runs_within([], 10) == [[]]
