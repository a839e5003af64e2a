import sys
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import pytest

from dlm.errors import InvalidRequest
from dlm.registry import Registry

ENTRIES = {
    "ordered": "collections:OrderedDict",
    "lazy": "module_that_is_not_there:Thing",
    "needy": "needy_module:Thing",
}


@pytest.fixture
def registry() -> Registry:
    return Registry("unmask", ENTRIES, "dlm_test.strategies")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts modules and a distribution with entry points on the path."""

    def install_(name: str, entry_points: str = "", **modules: str) -> None:
        site = tmp_path / name
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dlm_test.strategies]\n{entry_points}\n")
        for module, source in modules.items():
            Path(site / f"{module}.py").write_text(source)
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(site)

    return install_


def refusal(call, *args) -> str:
    with pytest.raises(InvalidRequest) as caught:
        call(*args)
    assert caught.value.param == "unmask"
    return caught.value.message


def test_names_import_nothing(registry):
    assert registry.names() == ("ordered", "lazy", "needy")
    assert "module_that_is_not_there" not in sys.modules


def test_load_returns_the_class(registry):
    assert registry.load("ordered") is OrderedDict


def test_entries_are_copied_and_read_only():
    mine = dict(ENTRIES)
    registry = Registry("unmask", mine)
    mine["new"] = "collections:Counter"
    assert "new" not in registry.names()
    with pytest.raises(TypeError):
        registry.entries["new"] = "collections:Counter"  # type: ignore[index]
    with pytest.raises(AttributeError):
        registry.kind = "edit"  # type: ignore[misc]


def test_unknown_name_lists_the_known_ones(registry):
    assert refusal(registry.load, "orderd") == (
        "must be one of 'lazy', 'needy', 'ordered', got 'orderd'; did you mean 'ordered'?"
    )


def test_a_missing_dependency_is_named(registry, install):
    install("needy_dist", needy_module="import package_nobody_has\nclass Thing: ...\n")
    assert refusal(registry.load, "needy") == (
        "'needy' needs the package 'package_nobody_has', which is not installed"
    )


def test_plugins_are_found_by_kind_or_plainly(registry, install):
    install(
        "plugin_a",
        "unmask.mine = part_a:Mine\nplain = part_a:Plain\nedit.other = part_a:Other\n"
        "plain.dotted = part_a:Other\nordered = part_a:Mine",
        part_a="class Mine: ...\nclass Plain: ...\nclass Other: ...\n",
    )
    assert registry.names() == ("ordered", "lazy", "needy", "mine", "plain")
    assert "mine" in registry
    assert "lazy" in registry
    assert "other" not in registry
    assert registry.load("mine").__name__ == "Mine"
    assert registry.load("plain").__name__ == "Plain"
    assert registry.load("ordered") is OrderedDict, "a built-in name is never shadowed"
    assert "'mine'" in refusal(registry.load, "other")


def test_a_name_of_the_kind_goes_before_a_plain_one(registry, install):
    install(
        "plugin_b",
        "both = part_b:Plain\nunmask.both = part_b:Kind",
        part_b="class Plain: ...\nclass Kind: ...\n",
    )
    assert registry.load("both").__name__ == "Kind"


def test_two_packages_may_not_claim_one_name(registry, install):
    install("plugin_c", "clash = part_c:C", part_c="class C: ...\n")
    install("plugin_d", "clash = part_d:D", part_d="class D: ...\n")
    assert refusal(registry.load, "clash") == (
        "'clash' is claimed by several installed packages: part_c:C, part_d:D"
    )


def test_without_a_group_no_plugin_is_looked_up(install):
    install("plugin_e", "mine = part_e:Mine", part_e="class Mine: ...\n")
    assert Registry("unmask", ENTRIES).names() == tuple(ENTRIES)


def test_load_path(registry, install):
    install("user_code", nested="class Outer:\n    class Inner: ...\n")
    assert registry.load_path("fractions:Fraction") is Fraction
    assert registry.load_path("nested:Outer.Inner").__qualname__ == "Outer.Inner"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("fractions.Fraction", "must be \"pkg.mod:Class\", got 'fractions.Fraction'"),
        ("fractions:", "must be \"pkg.mod:Class\", got 'fractions:'"),
        (".fractions:Fraction", "must be \"pkg.mod:Class\", got '.fractions:Fraction'"),
        ("a:b:c", "must be \"pkg.mod:Class\", got 'a:b:c'"),
        ("nowhere.mod:Thing", "found no module 'nowhere.mod' for 'nowhere.mod:Thing'"),
        ("fractions.sub:Thing", "found no module 'fractions.sub' for 'fractions.sub:Thing'"),
        ("fractions:gcd_", "class in 'fractions' must be one of 'Decimal', 'Fraction', got 'gcd_'"),
        ("math:pi", "must name a class, got float 'math:pi'"),
        ("broken:Thing", "importing 'broken' failed with ZeroDivisionError: division by zero"),
    ],
)
def test_load_path_explains_what_is_wrong(registry, install, path, text):
    install("user_code", broken="1 / 0\n")
    assert refusal(registry.load_path, path).startswith(text)
