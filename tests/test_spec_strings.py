"""Parts as they are given: names, spec strings, paths and objects, and the words for wrong ones."""

import ast
from dataclasses import dataclass

import pytest

import dlm
from dlm.config import GenerationConfig
from dlm.config.spec_strings import parse_part
from dlm.errors import InvalidRequest
from dlm.unmasking.unmask.threshold import Threshold


@dataclass(frozen=True, slots=True)
class Left(dlm.Unmasker):
    """Commits the first eligible position."""

    def propose(self, view):
        first = view.eligible & (view.eligible.cumsum(dim=1) == 1)
        return dlm.Proposal(commit=first)


class Plain:
    """A rule without its decorator."""

    def propose(self, view):
        return dlm.Proposal(commit=view.eligible)


def refusal(kind, spec, **options):
    with pytest.raises(InvalidRequest) as caught:
        parse_part(kind, spec, **options)
    assert caught.value.param == kind
    return caught.value.message


def test_an_object_is_taken_as_it_is():
    rule = Left()
    assert parse_part("unmask", rule) is rule
    assert parse_part("unmask", f"{__name__}:Left") == rule
    assert parse_part("unmask", "threshold(0.5)") == Threshold(0.5)


def test_a_class_is_answered_with_its_object():
    told = "must be an object, got the class Left: give Left()"
    assert refusal("unmask", Left) == told


@pytest.mark.parametrize("part", [Plain, Plain(), f"{__name__}:Plain"])
def test_a_class_without_its_decorator_is_told_so(part):
    assert "must be a dataclass, as every part: write @dataclass(frozen=True)" in (
        refusal("unmask", part)
    )


@pytest.mark.parametrize("spec", [3, 0.5, ["threshold"], {"threshold": 0.9}, object()])
def test_other_values_get_the_list_that_strings_get(spec):
    told = refusal("unmask", spec)
    names = refusal("unmask", "no_such_rule", trusted=False).partition(", got")[0]
    assert told.startswith(f"{names} or a part, got ")


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("my.rules.Left", "'my.rules:Left'"),
        ("Left(count=3)", "'package.module:Left'"),
        ("Lft", "'package.module:Lft'"),
    ],
)
def test_a_class_of_ones_own_is_given_by_its_path(spec, path):
    assert refusal("unmask", spec).endswith(f"; a class of your own is given as {path}")


@pytest.mark.parametrize("spec", ["thresold", "top k", "Left!"])
def test_misspelt_names_and_no_names_get_no_path(spec):
    assert "package.module" not in refusal("unmask", spec)


def test_strangers_are_not_told_of_paths():
    assert "a class of your own" not in refusal("unmask", "Left", trusted=False)
    with pytest.raises(InvalidRequest) as caught:
        GenerationConfig.from_options({"unmask": "Left"}, trusted=False)
    assert "package.module" not in caught.value.message


def test_a_missing_module_names_the_places_that_were_searched(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", "/elsewhere"])
    assert f"neither in the current folder {tmp_path} nor among" in refusal("edit", "a_b.c:Rule")
    monkeypatch.setattr("sys.path", ["/elsewhere"])
    assert f"sys.path, which lacks the current one, {tmp_path}" in refusal("edit", "a_b.c:Rule")


def test_the_module_of_a_path_may_be_in_the_current_folder(monkeypatch, tmp_path):
    (tmp_path / "mine_here.py").write_text(
        "from dataclasses import dataclass\n"
        "from dlm.unmasking.unmask.threshold import Threshold\n"
        "@dataclass(frozen=True, slots=True)\nclass Mine(Threshold):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert type(parse_part("unmask", "mine_here:Mine(0.5)")).__name__ == "Mine"


def test_a_tree_that_two_threads_build_is_built_again(monkeypatch):
    """CPython 3.11 may raise `SystemError` there, whatever the string (gh-106905)."""
    parse, failures = ast.parse, [SystemError("AST constructor recursion depth mismatch")] * 3

    def fail(*arguments, **options):
        if failures:
            raise failures.pop()
        return parse(*arguments, **options)

    monkeypatch.setattr("ast.parse", fail)
    assert parse_part("unmask", "leap(radius=7)").radius == 7
    assert not failures
