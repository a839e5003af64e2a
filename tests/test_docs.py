"""The pages of README.md and docs/ hang together: links, anchors, named files, and the site."""

import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from tests.test_readme import DOCS, PAGES, README, ROOT, text_of

VENV = ROOT / "build/docs/venv/bin/python"
"""The environment of `make docs`."""


def prose(page):
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)


def anchors(page):
    """The anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def links(page):
    """Path and anchor of each relative link, the path in full."""
    shown = re.sub(r"`[^`\n]*`", "", prose(page))
    found = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", shown)
    return [((page.parent / path).resolve() if path else page, anchor) for path, anchor in found]


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_relative_links_lead_somewhere(page):
    """To files: a folder has no page in the site."""
    assert links(page) or page.stem == "api"
    for path, anchor in links(page):
        assert path.is_file(), path
        assert path.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(path), f"{path.name}#{anchor}"


def test_every_page_is_linked():
    assert {path for path, _ in links(DOCS / "index.md")} >= {README, *PAGES} - {DOCS / "index.md"}
    assert DOCS / "index.md" in {path for path, _ in links(README)}


def test_the_readme_is_short():
    assert len(text_of(README).splitlines()) <= 180


def test_files_that_pages_name_exist():
    named = {
        (p, f) for p in PAGES for f in re.findall(r"`((?:dlm|tests|evals)/[\w./]+)`", text_of(p))
    }
    assert len(named) > 20
    assert [(p.name, file) for p, file in sorted(named) if not (ROOT / file).exists()] == []


def named_symbols(page):
    """Names in backticks and the files or folders named beside them, a row or paragraph each."""
    for part in re.split(r"\n\n|\n(?=\||- )", prose(page)):
        spans = re.findall(r"`([^`\n]+)`", part)
        places = [s for s in spans if re.fullmatch(r"(dlm|tests|evals)/[\w/.]+", s)]
        names = [s for s in spans if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", s)]
        for name in names if places else ():
            if not name.endswith(".py"):
                yield name, places


def sources(places):
    paths = (ROOT / place for place in places)
    files = (f for p in paths for f in ([p] if p.is_file() else p.rglob("*.py")))
    return "\n".join(file.read_text("utf-8") for file in files if file.suffix == ".py")


def test_names_beside_files_are_in_these_files():
    found = [(page.name, *symbol) for page in PAGES for symbol in named_symbols(page)]
    assert len(found) > 20
    for page, name, places in found:
        code = sources(places)
        lost = [part for part in name.split(".") if not re.search(rf"\b{part}\b", code)]
        assert not lost, f"{page}: `{name}` is not in {places}"


def test_the_site_has_every_page():
    """And the API page names what can be imported."""
    site = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    listed = {path for entry in site["nav"] for path in entry.values()}
    assert listed == {str(page.relative_to(ROOT)) for page in PAGES}
    names = re.findall(r"^::: (\S+)$", text_of(DOCS / "api.md"), re.M)
    assert len(names) > 30
    for name in names:
        path, _, last = name.rpartition(".")
        assert inspect.getdoc(getattr(import_module(path), last)), name


@pytest.mark.slow
def test_the_site_is_built_and_a_dead_link_fails(tmp_path):
    """In a copy, where one link more leads nowhere."""
    python = sys.executable if importlib.util.find_spec("zensical") else VENV
    if not Path(python).exists():
        pytest.skip("zensical is not installed: make docs")
    shutil.copytree(ROOT, tmp_path / "dlm", ignore=shutil.ignore_patterns(".*", "build", "runs"))
    build = [python, tmp_path / "dlm/docs/build.py"]
    made = subprocess.run(build, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    site = tmp_path / "dlm/build/docs/site"
    assert 'id="dlm.Engine.generate"' in (site / "docs/api/index.html").read_text("utf-8")
    for line in ("[x](nowhere.md)", "[x](parts.md#nowhere)", "[x][dlm.Nothing]", "::: dlm.Nothing"):
        page = tmp_path / "dlm/docs/contributing.md"
        page.write_text(f"{text_of(DOCS / 'contributing.md')}\n{line}\n", "utf-8")
        assert subprocess.run(build, capture_output=True).returncode != 0, line
