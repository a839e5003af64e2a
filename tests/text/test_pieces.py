"""Pieces of a text, encoded and decoded where they do not begin it."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.errors import InvalidRequest
from dlm.text import IncrementalDecoder, load_text
from tests.text.folders import FOLDERS

LOSSY = ("word", "unigram", "Gemma", "pieces")
"""In their names: tokenizers that drop spaces, or lack characters."""
EXACT = [name for name in FOLDERS if not any(word in name for word in LOSSY)]
TEXTS = st.text(st.sampled_from("world wo rld\n  .,xA0é漢🙂<|>_"), max_size=12) | st.text(
    max_size=6
)


@pytest.fixture(scope="module", params=EXACT)
def exact(request, tmp_path_factory):
    """Tokenizers that can write every text."""
    folder = tmp_path_factory.mktemp("exact")
    FOLDERS[request.param](folder)
    return load_text(folder)


@pytest.fixture(scope="module", params=FOLDERS)
def any_text(request, tmp_path_factory):
    if "pieces" in request.param.split(",")[0] or request.param.startswith("unigram"):
        pytest.importorskip("google.protobuf", reason="needs protobuf to read tokenizer.model")
    folder = tmp_path_factory.mktemp("any")
    FOLDERS[request.param](folder)
    return load_text(folder)


@settings(max_examples=40)
@given(pieces=st.lists(TEXTS, max_size=4))
def test_pieces_join_to_their_text(exact, pieces):
    pieces = [piece for piece in pieces if exact.decode(exact.encode(f"x{piece}")) == f"x{piece}"]
    ids = [exact.encode_inside(piece) for piece in pieces]
    assert [exact.decode_inside(each) for each in ids] == pieces
    assert exact.decode_inside([i for each in ids for i in each]) == "".join(pieces)
    assert all(exact.special_ids().isdisjoint(each) for each in ids)


@settings(max_examples=40)
@given(pieces=st.lists(TEXTS, max_size=3))
def test_a_piece_comes_back_or_is_refused(any_text, pieces):
    for piece in pieces:
        try:
            ids = any_text.encode_inside(piece)
        except InvalidRequest:
            with pytest.raises(InvalidRequest, match=r"`infill`: this tokenizer cannot write "):
                any_text.encode_inside(piece, "infill")
        else:
            assert any_text.decode_inside(ids) == piece


@pytest.mark.parametrize("string", ["wo", "rld", " wo", "world wo", "wo rld lions"])
def test_common_pieces_are_written_by_most_tokenizers(any_text, string):
    if any_text.vocabulary.pieces()[0] == "[UNK]":
        with pytest.raises(InvalidRequest, match="cannot write"):
            any_text.encode_inside(f"{string} ")
        return
    assert any_text.decode_inside(any_text.encode_inside(string)) == string


def test_a_hole_in_the_middle_of_a_word(any_text):
    """No piece gains a space, whatever fills the hole."""
    if any_text.vocabulary.pieces()[0] == "[UNK]":
        return
    before, after = any_text.encode_inside("wo"), any_text.encode_inside("rld")
    for hole in ("x", "is", " a"):
        ids = [*before, *any_text.encode_inside(hole), *after]
        assert any_text.decode_inside(ids) == f"wo{hole}rld"


@settings(max_examples=30)
@given(data=st.data())
def test_deltas_join_to_the_text_of_any_ids(any_text, data):
    size = len(any_text.vocabulary.pieces())
    ids = data.draw(st.lists(st.integers(0, size + 3), max_size=16))
    edges = sorted({0, len(ids), *data.draw(st.lists(st.integers(0, len(ids)), max_size=6))})
    for inside, decode in ((True, any_text.decode_inside), (False, any_text.decode)):
        decoder = IncrementalDecoder(any_text, inside=inside)
        deltas = [decoder.feed(ids[a:b]) for a, b in pairwise(edges)]
        assert "".join([*deltas, decoder.finish()]) == decode(ids)
