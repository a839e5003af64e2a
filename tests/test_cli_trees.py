"""The files of `dlm search`: the search and its request, shown in all forms."""

import json
from html.parser import HTMLParser
from math import inf, isnan, nan

import pytest

import dlm
from dlm.cli import trees
from dlm.search.saved import SavedRequest, SavedSearch

PROMPT = "Countdown: use 2 10 3 to make 9."
OPTIONS = ("--temperature", "1", "--max-new-tokens", "32", "--seed", "3")
SAME = {"temperature": 1.0, "max_new_tokens": 32, "seed": 3}


@pytest.fixture(scope="module")
def found():
    return dlm.load().search(PROMPT, "best_of(5, width=2)", **SAME)


def test_a_file_holds_its_request(call, tmp_path):
    """The options in the file give the same search again."""
    file = tmp_path / "tree.json"
    asked = ("--budget", "nfe=60", "--target", "0.5")
    policy = ("--search", "best_of(5, width=2)", "--verifier", "countdown")
    assert call("search", PROMPT, *policy, *OPTIONS, *asked, "--out", file)[0] == 0
    saved = SavedSearch.from_json(json.loads(file.read_text()))
    assert saved.request == SavedRequest(PROMPT, None, False, {"nfe": 60}, 0.5, SAME)
    own = saved.request
    again = dlm.load().search(
        own.prompt,
        saved.search,
        verifier=saved.verifier,
        budget=own.budget,
        target=own.target,
        **own.options,
    )
    assert (again.text, again.score, again.costs.nfe) == (saved.text, saved.score, saved.costs.nfe)
    assert again.tree == saved.nodes


def written(found, **changes):
    saved = SavedSearch.of(found, model="tiny", search="best_of(5, width=2)", verifier="confidence")
    return saved.to_json() | changes


def test_a_saved_search_comes_back(found):
    saved = SavedSearch.of(found, model="tiny", search="best_of", verifier="")
    text = json.dumps(saved.to_json(), allow_nan=False)
    again = SavedSearch.from_json(json.loads(text))
    assert again == saved
    assert again.nodes == found.tree
    assert again.costs == found.costs
    assert again.best == next(c.node for c in found.candidates if c.answer is found.best)


def test_scores_that_json_lacks_come_back(found):
    record = written(found)
    assert record["v"] == 1
    record["nodes"][0]["score"], record["nodes"][1]["score"] = None, "-inf"
    again = SavedSearch.from_json(record)
    assert isnan(again.nodes[0].score)
    assert again.nodes[1].score == -inf
    told = again.to_json()["nodes"]
    assert [node["score"] for node in told[:2]] == [None, "-inf"]


def test_a_file_of_the_command_is_shown_as_text(call, tmp_path, found):
    file = tmp_path / "tree.json"
    call("search", PROMPT, "--search", "best_of(5, width=2)", *OPTIONS, "--out", file)
    code, out, _ = call("trace", file)
    assert code == 0
    first, prompt, columns, *lines = out.splitlines()
    assert prompt == f"prompt: {PROMPT}"
    assert columns == trees.HEAD
    assert first.startswith("best_of(5, width=2) judged by confidence on tiny · score")
    assert len(lines) == len(found.tree) == 5
    (best,) = [line for line in lines if line.startswith("*")]
    assert trees.one_line(found.text) in best


TREE = [
    dlm.TreeNode(0, None, 0, (("start", 0), ("advance", 8), ("remask 3", 8), ("advance", 11)), "a"),
    dlm.TreeNode(1, 0, 0, (("branch", 8), ("advance", 12)), "<b>&'\"", -0.5, 4),
    dlm.TreeNode(2, None, 1, (("start", 0), ("advance", 9)), "c\nd", -1.0, 9),
    dlm.TreeNode(3, 1, 1, (("branch", 10),), "e", -inf),
]


def test_lines_stand_below_their_parents():
    lines = trees.lines_of(TREE)
    assert [(line.node.number, line.depth, line.lane) for line in lines] == [
        *((0, 0, 0), (1, 1, 1), (3, 2, 2), (2, 0, 3)),
    ]
    assert [(line.start, line.end) for line in lines] == [(0, 11), (8, 12), (10, 10), (0, 9)]
    assert [line.remasked for line in lines] == [(8,), (), (), ()]


def forked(found):
    record = written(found)
    bare = SavedSearch.from_json(record)
    own = SavedSearch.of(found).to_json() | {"nodes": []}
    saved = SavedSearch.from_json(own)
    assert bare.nodes
    return SavedSearch(**{name: getattr(saved, name) for name in saved.__slots__} | {"nodes": TREE})


class Reader(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_a_page_shows_all_nodes_and_escapes_their_texts(found, tmp_path):
    from dlm.cli.tree_page import write_tree_page

    path = tmp_path / "tree.html"
    write_tree_page(forked(found), path)
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    assert reader.tags.count("g") == len(TREE)
    assert reader.tags.count("tr") == 1 + len(found.candidates)
    assert {"script", "b", "link", "img"}.isdisjoint(reader.tags)
    assert "<b>&'\"" in reader.text
    assert found.text in reader.text
    assert "remask 3 (at 8)" in reader.text
    longest, most = max(line.end for line in trees.lines_of(TREE)), found.costs.nfe
    assert f"{longest} forwards" in reader.text
    assert f"{most:.0f} forwards" in reader.text
    assert "opened again" in reader.text


def test_html_and_picture_by_the_command(call, tmp_path, found):
    pytest.importorskip("matplotlib")
    file, html, png = (tmp_path / name for name in ("tree.json", "tree.html", "tree.png"))
    file.write_text(json.dumps(forked(found).to_json(), indent=1))
    assert call("trace", file, "--html", html, "--png", png) == (0, "", "")
    assert html.read_text("utf-8").startswith("<!doctype html>")
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"v": 2}, "version must be 1, got 2"),
        ({"nodes": [{"number": 0}]}, "must have a field 'work'"),
        ({"costs": {"forwards": 3}}, "field of a wrong form"),
        ({"curve": 3}, "field of a wrong form"),
        ({"score": "high"}, "could not convert"),
    ],
)
def test_wrong_files_are_told(call, tmp_path, found, changes, words):
    file = tmp_path / "tree.json"
    file.write_text(json.dumps(written(found, **changes)))
    code, _, err = call("trace", file)
    assert code == 2
    assert err.startswith(f"dlm: error: `trace`: {file}: "), err
    assert words in err


def test_a_field_that_lacks_is_told(call, tmp_path, found):
    record = written(found)
    del record["candidates"]
    file = tmp_path / "tree.json"
    file.write_text(json.dumps(record))
    assert "must have a field 'candidates'" in call("trace", file)[2]


def test_a_search_has_no_rows_to_choose(call, tmp_path, found):
    file = tmp_path / "tree.json"
    file.write_text(json.dumps(written(found)))
    code, _, err = call("trace", file, "--row", 1)
    assert (code, "`row`" in err) == (2, True)


def test_scores_are_spelled():
    assert [trees.spelled(score) for score in (nan, -inf, -0.12345)] == ["-", "failed", "-0.1235"]
    assert trees.scale([nan, -inf]) == (-0.5, 0.5)
    assert trees.scale([0.5, 2.0, nan]) == (0.5, 2.0)


def test_all_forms_of_a_tree_show_the_request(call, tmp_path, found):
    from dlm.cli.tree_page import write_tree_page

    own = SavedRequest("a <b> or\nb?", "Calculate.", False, {"nfe": 60}, 0.5, {"seed": 3})
    saved = SavedSearch.of(found, request=own)
    assert list(trees.text_tree(saved))[1] == "prompt: a <b> or⏎b?"
    assert trees.settings(saved) == "seed=3, budget nfe=60, target 0.5"
    path = tmp_path / "tree.html"
    write_tree_page(saved, path)
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    assert own.prompt in reader.text
    assert own.system in reader.text
    assert trees.settings(saved) in reader.text
    assert "b" not in reader.tags


def test_files_without_a_request_are_read(found):
    record = written(found)
    del record["request"]
    again = SavedSearch.from_json(record)
    assert again.request == SavedRequest()
    assert list(trees.text_tree(again))[1] == trees.HEAD
    assert trees.settings(again) == ""
