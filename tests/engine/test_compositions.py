"""Any two editors with any unmasker, scheduler and cache that bind: the invariants of every run.

`DLM_COMPOSITIONS=5000` draws that many in place of a few.
"""

import os

from hypothesis import given
from hypothesis import strategies as st

from dlm.errors import InvalidRequest
from tests.engine.harness import Bench
from tests.engine.test_invariants import (
    DELIMITERS,
    NAMES,
    VOCAB,
    check_canvases,
    check_end,
    check_keys,
    check_ledger,
    check_replay,
    check_settled,
    model,
    quick,
    spelled,
)

COMPOSITIONS = int(os.environ.get("DLM_COMPOSITIONS", "150"))


@st.composite
def compositions(draw):
    """A decoder, and a request with two editors that it accepts."""
    causal = draw(st.booleans())
    decoder = model(draw(st.integers(0, 3)), causal, draw(st.booleans()))
    bench = Bench(decoder, DELIMITERS)

    def drawn(kind):
        name = draw(st.sampled_from(NAMES[causal][kind]))
        return draw(spelled(4 if causal else 1).get((kind, name), st.just(name)))

    caches = ["none", "block_causal"] if causal else ["none", "dual(on_edit='requery')"]
    options = {
        "max_new_tokens": draw(st.integers(1, 14)),
        "unmask": drawn("unmask"),
        "blocks": drawn("blocks"),
        "cache": drawn("cache") if draw(st.booleans()) else draw(st.sampled_from(caches)),
        "edit": [drawn("edit"), drawn("edit")],
        "stop": drawn("stop") if draw(st.booleans()) else "none",
        "temperature": draw(st.sampled_from([0.0, 0.7])),
        "seed": draw(st.integers(0, 3)),
    }
    prompt = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=6))
    try:
        return bench, bench.state(prompt, **options)
    except InvalidRequest:
        return None


@given(compositions().filter(bool))
@quick(COMPOSITIONS)
def test_two_editors_keep_every_invariant(drawn):
    bench, state = drawn
    (trace,) = bench.run(state)
    check_canvases(state, trace, paced=True)
    check_end(state, trace)
    check_replay(state, trace)
    check_settled(state, trace)
    check_ledger(state, trace)
    check_keys(state, trace)
    assert not bench.pool.pages.in_use
