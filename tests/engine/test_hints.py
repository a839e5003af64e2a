"""Rules that read a view wrongly: the error names the remedy."""

from dataclasses import dataclass

import pytest

import dlm
from dlm.errors import culprit_of
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12)
PLAIN = {"max_new_tokens": 16, "stop": "none", "blocks": "fixed(8)"}


@pytest.fixture(scope="module")
def engine():
    spec = tiny_spec()
    return dlm.Engine(random_decoder(spec), info_of(spec))


@dataclass(frozen=True)
class Reads(dlm.Unmasker):
    """Reads a view in the way that `what` names."""

    what: str = ""
    count: int = 3

    def propose(self, view):
        if self.what == "compared":
            return dlm.Proposal(view.eligible & (view.stats.entropy < 0.5))
        if self.what == "later":
            entropy = view.stats.entropy
            return dlm.Proposal(view.eligible & entropy.isfinite())
        if self.what == "of the view":
            return dlm.Proposal(view.eligible & (view.entropy < 0.5))
        if self.what == "misspelt number":
            return dlm.Proposal(view.eligible & (view.confidence > view.params.cuont))
        if self.what == "unknown number":
            return dlm.Proposal(view.eligible & (view.confidence > view.params.threshold))
        if self.what == "text":
            return dlm.Proposal(view.eligible & (view.params.what == "text"))
        if self.what == "misspelt field":
            return dlm.Proposal(view.elligible)
        return dlm.Proposal(view.eligible & (3 + "x"))


@pytest.mark.parametrize(
    ("what", "hint"),
    [
        (
            "compared",
            "`view.stats.entropy` is there for parts with `needs = frozenset({'entropy'})`",
        ),
        ("later", "`view.stats.entropy` is there for parts with `needs = frozenset({'entropy'})`"),
        (
            "of the view",
            "read `view.stats.entropy`, of parts with `needs = frozenset({'entropy'})`",
        ),
        ("misspelt number", "did you mean 'count'?"),
        ("unknown number", "it has 'count'"),
        ("text", "`view.params` holds the numbers alone; read `self.what`"),
        ("misspelt field", "did you mean 'eligible'?"),
        ("something else", ""),
    ],
)
def test_a_view_that_is_read_wrongly_gives_a_hint(engine, what, hint):
    with pytest.raises((TypeError, AttributeError)) as caught:
        engine.generate(PROMPT, **{**PLAIN, "unmask": Reads(what)})
    found = culprit_of(caught.value)
    assert found.hint == hint
    assert found.line.startswith(__file__)
    assert caught.value.__notes__ == [f"raised in the {found}" + (f": {hint}" if hint else "")]
