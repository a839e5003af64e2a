"""Extractors: texts that mean the same answer give the same string."""

from __future__ import annotations

from typing import Any

import pytest

from dlm.errors import InvalidRequest
from dlm.search.extract import EXTRACTORS, extract


@pytest.mark.parametrize(
    ("rule", "text", "answer"),
    [
        ("number", "She has 3 apples, then 1,250.50 dollars.", "1250.5"),
        ("number", "10-3=7 so -7", "-7"),
        ("number", "It is 10-3", "3"),
        ("number", "f(x)-3", "3"),
        ("number", "costs -$5.00", "-5"),
        ("number", "of 3,4", "4"),
        ("number", "007", "7"),
        ("number", "-0.0", "0"),
        ("number", "half: .50", "0.5"),
        ("number", "version 3.5.2", "3.5"),
        ("number", "答案是42。", "42"),
        ("number", "\u22123", "-3"),
        ("number", "H2O", None),
        ("number", "", None),
        ("boxed", r"\boxed{3}, no: \boxed{ 1,000.0 }.", "1000"),
        ("boxed", r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("boxed", r"\boxed{4} and \boxed{5", "4"),
        ("boxed", r"\boxed{\text{yes}}", "yes"),
        ("boxed", r"{\boxed{$12$}}", "12"),
        ("boxed", "} no box {3}", None),
        ("choice", "The answer is (B).", "B"),
        ("choice", "I think A or B, so the answer: **C**", "C"),
        ("choice", "(A) is wrong and (D) is right", "D"),
        ("choice", "B. because", "B"),
        ("choice", "thus\nD", "D"),
        ("choice", r"\boxed{(E)}", "E"),
        ("choice", "A dog", None),
        ("line", "a\n  b   c \n\n", "b c"),
        ("line", " \n", None),
        ("text", " a\n b ", "a b"),
        ("text", "\n", None),
        ("auto", r"1\n\boxed{3} apples, 5 pears", "3"),
        ("auto", "5 + 5\n#### 10", "10"),
        ("auto", "it takes 12 days", "12"),
        ("auto", "so\nyes", "yes"),
        ("auto", "", None),
    ],
)
def test_answers_of_texts(rule: str, text: str, answer: str | None) -> None:
    assert extract(rule)(text) == answer


def test_code_is_compared_by_its_syntax() -> None:
    body = "    y = x+1  # one more\n    return y\n"
    same = ('"""Add."""\ny = (x + 1)\nreturn y', "y = x+1\n    return y", f"```python\n{body}```")
    code = extract("code")
    assert code(body) == "y = x + 1\nreturn y"
    assert all(code(text) == code(body) for text in same)
    assert code("return x + 2") != code(body)
    assert code("x = = 1") is None
    assert code("# nothing") is None
    assert code("x = '\0'") is None
    assert code("(" * 5000) is None


def test_long_texts_take_no_time() -> None:
    for text in ("\\boxed{" * 20_000, "\n" * 50_000, "1," * 50_000, "answer is " * 20_000):
        for rule in EXTRACTORS:
            if rule != "code":
                extract(rule)(text)


def test_own_functions() -> None:
    assert extract(len)("abc") == "3"
    assert extract(lambda text: None)("abc") is None

    def bad(text: str) -> Any:
        raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer") as caught:
        extract(bad)("abc")
    assert "extract" in caught.value.__notes__[0]


@pytest.mark.parametrize(("rule", "told"), [("nubmer", "number"), (3, "got 3")])
def test_unknown_rules_are_refused(rule: Any, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        extract(rule)
