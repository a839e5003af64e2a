"""Folders of every layout: ids and texts are those of transformers' own class."""

import json
import shutil
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast, Qwen2Tokenizer

from dlm.errors import InvalidRequest
from dlm.text import load_text
from tests.text import folders
from tests.text.folders import CHATML, CORPUS, FOLDERS, SPECIAL, as_merges, as_pieces, byte_bpe

TEXTS = st.text(st.sampled_from("world wo rld\n  .,xA0é漢🙂<|>_"), max_size=20) | st.text(
    max_size=8
)
EXAMPLES = (
    "Hello world",
    " wo",
    "",
    " a  b\n\n c ",
    "é漢🙂",
    "say <|mask|> or <|im_end|>",
    "\r\n\t",
)
NO_PIECE = 100_000


def needs_pieces(name):
    if "pieces" in name.split(",")[0] or name.startswith("unigram"):
        pytest.importorskip("google.protobuf", reason="needs protobuf to read tokenizer.model")


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request, tmp_path_factory):
    """Every layout in turn."""
    needs_pieces(request.param)
    folder = tmp_path_factory.mktemp("layout")
    FOLDERS[request.param](folder)
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return load_text(folder)


@pytest.fixture(scope="module")
def reference(folder):
    """What `AutoTokenizer` gives."""
    return AutoTokenizer.from_pretrained(folder, config=PreTrainedConfig(), trust_remote_code=False)


def assert_same_text(text, reference, string):
    """Ids and text of a string, control tokens that it spells being text."""
    literal = any(token in string for token in text.vocabulary.control)
    for begin in (True, False):
        options = {"add_special_tokens": begin, "split_special_tokens": literal}
        ids = reference.encode(string, **options)
        if not begin and not text.special_ids().isdisjoint(
            set(ids) - {reference.unk_token_id, *reference.encode(folders.ODD, **options)}
        ):
            return  # an ordinary piece spells a control token: see test_control.py
        found = text.encode_prompt(string, chat=False) if begin else text.encode(string)
        assert found == ids
        assert text.decode(ids) == reference.decode(
            [i for i in ids if i not in text.special_ids()], clean_up_tokenization_spaces=False
        )


@pytest.mark.parametrize("string", EXAMPLES)
def test_texts_are_those_of_transformers(text, reference, string):
    assert_same_text(text, reference, string)


@settings(max_examples=40)
@given(string=TEXTS)
def test_any_text_is_that_of_transformers(text, reference, string):
    assert_same_text(text, reference, string)


@settings(max_examples=20)
@given(contents=st.lists(TEXTS, min_size=1, max_size=3))
def test_chats_are_those_of_transformers(text, reference, contents):
    if text.vocabulary.template is None or any(
        token in content for content in contents for token in text.vocabulary.control
    ):
        return
    roles = ["user", "assistant", "user"][-len(contents) :]
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    expected = reference.apply_chat_template(messages, add_generation_prompt=True)
    assert text.encode_prompt(messages) == expected["input_ids"]


def test_ids_that_no_piece_has_show_nothing(text):
    ids = text.encode("world")
    size = len(text.vocabulary.pieces())
    assert text.decode([size, *ids, size + 5, NO_PIECE]) == text.decode(ids)
    assert text.decode_inside([size, NO_PIECE]) == ""


def test_every_id_has_one_piece(text):
    pieces = [piece for piece in text.vocabulary.pieces() if piece is not None]
    assert len(set(pieces)) == len(pieces)
    assert len(text.vocabulary.each()) == len(text.vocabulary.pieces())


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


# Added tokens behind the pieces, padded vocabularies, classes of their own


def test_a_model_of_sentencepiece_with_added_tokens(tmp_path):
    """The template's tokens and the end are tokens, and the padding behind them is nothing."""
    needs_pieces("pieces")
    as_pieces("bpe")(tmp_path)
    text = load_text(tmp_path)
    first = text.vocabulary.control["<|mask|>"]
    assert [text.vocabulary.control[token] for token in SPECIAL] == [*range(first, first + 4)]
    assert text.end_ids()[0] == first + 2
    ids = text.encode_prompt("world")
    assert [i for i in ids if i >= first] == [first + 1, first + 2, first + 1]
    assert text.decode([first, first + 2, first + 3, first + 60]) == ""


EXACT = {
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
}


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_lone_model_is_read_as_by_sentencepiece(tmp_path, kind):
    """With added tokens too, with which transformers cannot read unigram models."""
    needs_pieces("pieces")
    import sentencepiece

    as_pieces(kind, trainer=EXACT)(tmp_path)
    text = load_text(tmp_path)
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for string in (*CORPUS[:2], " wo  rld ", "\u00e9\u6f22\U0001f642\n"):
        assert text.encode(string) == own.encode(string)
        assert text.decode(text.encode(string)) == string
    assert text.vocabulary.control["<|mask|>"] == own.get_piece_size()


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_added_tokens_keep_the_ids_of_their_files(tmp_path, kind):
    """The libraries would number them on from the last piece."""
    needs_pieces("pieces")
    as_pieces(kind)(tmp_path)
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    tokens = told["added_tokens_decoder"]
    told["added_tokens_decoder"] = {str(int(i) + 20): token for i, token in tokens.items()}
    write(tmp_path, "tokenizer_config.json", told)
    text = load_text(tmp_path)
    expected = {token["content"]: int(i) + 20 for i, token in tokens.items()}
    assert expected.items() <= text.vocabulary.control.items()
    assert text.decode([int(next(iter(tokens))), *text.encode("world")]) == "world"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_added_tokens_json(tmp_path, kind):
    needs_pieces("pieces")
    as_pieces(kind)(tmp_path)
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    tokens = {t["content"]: int(i) for i, t in told.pop("added_tokens_decoder").items()}
    write(tmp_path, "tokenizer_config.json", told)
    write(tmp_path, "added_tokens.json", tokens)
    assert tokens.items() <= load_text(tmp_path).vocabulary.control.items()


def test_a_class_of_the_checkpoint_is_never_run(tmp_path):
    as_merges("DreamTokenizer")(tmp_path)
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    told["auto_map"] = {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]}
    write(tmp_path, "tokenizer_config.json", told)
    (tmp_path / "tokenization_dream.py").write_text("raise SystemExit('this was run')")
    write(tmp_path, "config.json", {"model_type": "Dream", "auto_map": {"AutoConfig": "a.B"}})
    assert load_text(tmp_path).encode("Hello wo") == Qwen2Tokenizer.from_pretrained(
        tmp_path
    ).encode("Hello wo")
    byte_bpe().save(str(tmp_path / "tokenizer.json"))
    assert load_text(tmp_path).encode("Hello wo") == byte_bpe().encode("Hello wo").ids


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "never heard of"},
        {"model_type": "llada", "rope_scaling": 7, "hidden_size": "wide"},
        {"model_type": "llama", "hidden_size": "wide", "rope_parameters": {"a": None}},
        {"model_type": "qwen2", "layer_types": 3},
        {},
    ],
)
def test_a_config_of_any_model_does_not_matter(tmp_path, config):
    folders.as_json(byte_bpe)(tmp_path)
    write(tmp_path, "config.json", config)
    assert load_text(tmp_path).encode(CORPUS[0]) == byte_bpe().encode(CORPUS[0]).ids


def test_the_config_may_name_the_class(tmp_path):
    as_merges(None)(tmp_path)
    write(tmp_path, "config.json", {"model_type": "llada", "tokenizer_class": "GPT2Tokenizer"})
    assert load_text(tmp_path).encode("It's 123") == AutoTokenizer.from_pretrained(
        tmp_path, config=PreTrainedConfig(tokenizer_class="GPT2Tokenizer")
    ).encode("It's 123")


def test_a_class_without_its_files_is_refused(tmp_path):
    """transformers would start it with a vocabulary of three tokens."""
    as_merges("LlamaTokenizer")(tmp_path)
    with pytest.raises(InvalidRequest, match=r"LlamaTokenizer needs tokenizer.json or tokenizer.m"):
        load_text(tmp_path)


def test_a_broken_file_beside_a_class_is_one_sentence(tmp_path):
    folders.as_json(byte_bpe, "Qwen2Tokenizer")(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[")
    with pytest.raises(InvalidRequest, match=r"`model`: the tokenizer in .* cannot be read: "):
        load_text(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(InvalidRequest, match="must hold a JSON object"):
        load_text(tmp_path)


def test_a_broken_model_of_sentencepiece(tmp_path, monkeypatch):
    needs_pieces("pieces")
    (tmp_path / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InvalidRequest, match=r"`model`: .*(cannot be read|no model)"):
        load_text(tmp_path)  # with tiktoken it is tried as a file of that
    monkeypatch.setattr("dlm.text.loading.find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match=r"tokenizer.model is no model of sentencepiece: "):
        load_text(tmp_path)
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    with pytest.raises(InvalidRequest, match=r"tokenizer.model needs protobuf: "):
        load_text(tmp_path)


# Chat templates


def template_of(folder, **settings):
    folders.as_json(byte_bpe)(folder)
    folders.settings(folder, "PreTrainedTokenizerFast", **settings)
    return lambda: load_text(folder).vocabulary.template


def test_templates_one_named_several_in_files_or_none(tmp_path):
    found = template_of(tmp_path)
    assert found() == CHATML
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ 1 }}"}]
    assert template_of(tmp_path, chat_template=named)() == "{{ 1 }}"
    assert template_of(tmp_path, chat_template=named[:1])() is None
    assert template_of(tmp_path, chat_template=None)() is None
    write(tmp_path, "chat_template.json", {"chat_template": "{{ 2 }}"})
    assert found() == "{{ 2 }}"
    more = tmp_path / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("no")
    (tmp_path / "chat_template.jinja").write_text("{{ 3 }}")
    assert found() == "{{ 3 }}"
    shutil.rmtree(more)
    assert found() == "{{ 3 }}"


def test_the_library_class_is_what_the_files_of_published_models_name(tmp_path):
    """LLaDA's folder: `tokenizer.json` with the class that says so."""
    folders.as_json(byte_bpe)(tmp_path)
    reference = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert load_text(tmp_path).encode(CORPUS[1]) == reference.encode(CORPUS[1])
