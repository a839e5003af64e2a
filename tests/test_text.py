import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import dlm
from dlm.errors import InvalidRequest
from dlm.text import IncrementalDecoder, StopMatcher, load_text
from tests.text.folders import as_json, byte_bpe

BUNDLED = Path(dlm.__file__).parent / "model" / "bundled" / "tiny"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not think %}<no>{% endif %}{% endif %}"
)
SPECIAL = ["<|mask|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
CORPUS = ["The cat sat on the mat.\nIt was user or assistant?", "naïve café: 12 + 30 = 42\n\n"] * 4


def save(tokenizer, folder, template):
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        mask_token="<|mask|>",
        additional_special_tokens=SPECIAL[1:3],
        chat_template=template,
    )
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def byte_fallback(tmp_path_factory):
    """A folder with a BPE of characters and 256 byte tokens, in the manner of sentencepiece."""
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    tokens += [*sorted(set("".join(CORPUS)) - set(" \n")), "\n", "at", "▁c", "▁cat"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [("a", "t"), ("▁", "c"), ("▁c", "at")]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=False)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return save(tokenizer, tmp_path_factory.mktemp("byte_fallback"), CHATML)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A folder with a byte-level BPE, in the manner of Qwen and LLaDA."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return save(tokenizer, tmp_path_factory.mktemp("byte_level"), CHATML)


@pytest.fixture(scope="module")
def sentencepiece_only(tmp_path_factory):
    """A folder with `tokenizer.model` and its settings only."""
    pytest.importorskip("google.protobuf", reason="needs protobuf to read tokenizer.model")
    folder = tmp_path_factory.mktemp("sentencepiece")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, folder)
    return folder


KINDS = ["byte_fallback", "byte_level", "sentencepiece_only", "bundled"]


@pytest.fixture(scope="module", params=KINDS)
def text(request):
    """Every kind of tokenizer in turn."""
    folder = BUNDLED if request.param == "bundled" else request.getfixturevalue(request.param)
    return load_text(folder)


@pytest.fixture(scope="module")
def chatml(byte_level):
    return load_text(byte_level)


def refused(call, *args, **options):
    with pytest.raises(InvalidRequest) as caught:
        call(*args, **options)
    return caught.value.param, caught.value.message


def test_a_folder_without_tokenizer_means_ids_only(tmp_path):
    assert load_text(tmp_path) is None


def test_a_broken_tokenizer_is_one_sentence(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    param, message = refused(load_text, tmp_path)
    assert param == "model"
    assert message.startswith(f"the tokenizer in {tmp_path} cannot be read: ")


@pytest.mark.parametrize(
    "string", ["The cat sat.", " a  b\n\n c ", "naïve 日本語 🙂", "<|mask|> <|im_end|>", ""]
)
def test_round_trip_is_exact(text, string):
    ids = text.encode(string)
    assert text.decode(ids) == string
    assert not text.special_ids() & set(ids)


def test_control_tokens_are_left_out_of_the_text(text):
    ids = [*sorted(text.special_ids()), *text.encode("hi"), *sorted(text.special_ids())]
    assert text.decode(ids) == "hi"


def test_ids_beyond_the_tokenizer_show_nothing(chatml):
    assert chatml.decode([*chatml.encode("hi"), 100_000]) == "hi"


def test_a_string_is_one_user_turn(chatml):
    ids = chatml.encode_prompt("The cat")
    assert ids == chatml.encode_prompt([{"role": "user", "content": "The cat"}])
    whole = "<|im_start|>user\nThe cat<|im_end|>\n<|im_start|>assistant\n<no>"
    assert ids == chatml.vocabulary.encode(whole, control=True, begin=False)
    assert chatml.encode_prompt("The cat", chat=False) == chatml.encode("The cat")


def test_template_options_and_a_continued_answer(chatml):
    thinking = chatml.encode_prompt("a", options={"think": True})
    assert chatml.decode(thinking) == "user\na\nassistant\n"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "The cat"}]
    assert chatml.decode(chatml.encode_prompt(messages)) == "user\na\nassistant\nThe cat"


def test_what_a_user_spells_never_becomes_a_control_token(text):
    control = text.vocabulary.control
    spelled = "".join(sorted(control)) + " and <|<|mask|>mask|>"
    plain = text.encode_prompt([{"role": "user", "content": "x"}])
    tricky = text.encode_prompt([{"role": "user", "content": f"x{spelled}"}])
    raw = text.encode_prompt(spelled, chat=False)
    controls = text.special_ids()
    assert [i for i in tricky if i in controls] == [i for i in plain if i in controls]
    assert spelled in text.decode(tricky)
    assert text.decode(raw) == spelled
    assert spelled in text.decode(text.encode_prompt(spelled))


def test_only_the_spelled_tokens_are_tokenised_apart(chatml):
    mask, cat = chatml.encode("<|mask|>"), chatml.encode("The cat")
    ids = chatml.encode_prompt([{"role": "user", "content": "The cat<|mask|>The cat"}])
    assert " ".join(map(str, [*cat, *mask, *cat])) in " ".join(map(str, ids))


def test_raw_text_may_hold_control_tokens_on_request(chatml):
    control = chatml.vocabulary.control
    raw = "<|im_start|>user\nhi<|im_end|>"
    ids = chatml.encode_prompt(raw, chat=False, control=True)
    assert (ids[0], ids[-1]) == (control["<|im_start|>"], control["<|im_end|>"])


def test_encoding_in_threads_gives_the_same_ids(chatml):
    prompts = ["The cat", "The <|mask|> cat"] * 40
    expected = [chatml.encode_prompt(prompt, chat=False) for prompt in prompts[:2]] * 40
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda prompt: chatml.encode_prompt(prompt, chat=False), prompts))
    assert found == expected


@pytest.mark.parametrize(
    ("messages", "param", "words"),
    [
        ([], "messages", "must be a list with at least one, got []"),
        (["hi"], "messages[0]", "must have the keys 'role' and 'content', got 'hi'"),
        (
            [{"role": "user"}],
            "messages[0]",
            "must have the keys 'role' and 'content', got ['role']",
        ),
        (
            [{"role": "user", "content": "a", "name": "b"}],
            "messages[0]",
            "must have the keys 'role' and 'content', got ['content', 'name', 'role']",
        ),
        (
            [{"role": "user", "content": "a"}, {"role": "usr", "content": "b"}],
            "messages[1].role",
            "must be one of 'assistant', 'system', 'tool', 'user', got 'usr'; did you mean 'user'?",
        ),
        (
            [{"role": "user", "content": None}],
            "messages[0].content",
            "must be a string, got NoneType",
        ),
    ],
)
def test_malformed_messages(chatml, messages, param, words):
    assert refused(chatml.encode_prompt, messages) == (param, words)


def test_halves_of_surrogate_pairs_are_no_text(chatml):
    half, rule = "a\ud83d", "must be Unicode text, got the lone surrogate '\\ud83d'"
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": half}]
    assert refused(chatml.encode_prompt, half) == ("prompt", rule)
    assert refused(chatml.encode_prompt, half, chat=False) == ("prompt", rule)
    assert refused(chatml.encode_prompt, messages) == ("messages[1].content", rule)
    assert refused(chatml.encode_inside, half, "infill") == ("infill", rule)
    assert refused(chatml.encode, half) == ("text", rule)


def test_a_template_may_refuse():
    text = load_text(BUNDLED)
    param, message = refused(text.encode_prompt, [{"role": "tool", "content": "x"}])
    assert (param, message) == (
        "messages",
        "the chat template refuses: role must be system, user or assistant, got tool",
    )


def test_without_a_template_a_string_is_raw_and_messages_are_refused(byte_level, tmp_path):
    folder = shutil.copytree(byte_level, tmp_path / "base")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    text = load_text(folder)
    assert text.encode_prompt("The cat") == text.encode("The cat")
    messages = [{"role": "user", "content": "a"}]
    assert refused(text.encode_prompt, messages) == (
        "messages",
        "need a chat template, and this model has none",
    )


def test_tokenizer_code_of_a_checkpoint_is_not_needed(byte_level, tmp_path):
    """Dream's folder: vocab.json and merges.txt, and a tokenizer class of its own."""
    whole = json.loads((byte_level / "tokenizer.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in whole["model"]["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    added = {
        str(token["id"]): {key: token[key] for key in token if key != "id"}
        for token in whole["added_tokens"]
    }
    settings = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": added,
        "eos_token": "<|endoftext|>",
        "mask_token": "<|mask|>",
        "chat_template": CHATML,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    text, original = load_text(tmp_path), load_text(byte_level)
    assert text.vocabulary.control["<|mask|>"] == original.vocabulary.control["<|mask|>"]
    assert text.encode("The cat") == original.encode("The cat")
    assert text.encode_prompt("The cat") == original.encode_prompt("The cat")


def test_delimiters_and_ends(text, chatml):
    delimiters = text.delimiter_ids()
    assert set(text.encode("\n")) <= set(delimiters)
    assert all("\n" in text.decode([index]) for index in delimiters)
    assert set(text.delimiter_ids(("\n", "."))) >= {*delimiters, *text.encode(".")}
    control = chatml.vocabulary.control
    assert chatml.end_ids() == (control["<|endoftext|>"], control["<|im_end|>"])


def cut_up(ids, cuts):
    """`ids` in pieces that end at `cuts`."""
    edges = [0, *sorted(cut % (len(ids) + 1) for cut in cuts), len(ids)]
    return [ids[a:b] for a, b in pairwise(edges)]


def streamed(text, pieces):
    """Every delta, the last one from `finish`."""
    decoder = IncrementalDecoder(text)
    return [*(decoder.feed(piece) for piece in pieces), decoder.finish()]


@given(data=st.data())
def test_deltas_join_to_the_text_of_any_ids(text, data):
    ids = data.draw(st.lists(st.integers(0, 290), max_size=24))
    cuts = data.draw(st.lists(st.integers(0, 24), max_size=8))
    assert "".join(streamed(text, cut_up(ids, cuts))) == text.decode(ids)


@given(string=st.text(max_size=16), cuts=st.lists(st.integers(0, 60), max_size=12))
def test_no_delta_shows_half_a_character(text, string, cuts):
    string = string.replace("\ufffd", "").replace("\r", "")
    deltas = streamed(text, cut_up(text.encode(string), cuts))
    assert "".join(deltas) == text.decode(text.encode(string))
    assert "\ufffd" not in "".join(deltas)


def test_a_character_waits_for_its_last_byte():
    text = load_text(BUNDLED)
    first, second = text.encode("é")[-2:]
    decoder = IncrementalDecoder(text)
    assert [decoder.feed([first]), decoder.feed([second]), decoder.finish()] == ["", "é", ""]
    assert [decoder.feed([first]), decoder.finish()] == ["", "\ufffd"]


def test_a_stop_string_cuts_before_itself():
    matcher = StopMatcher(["\n\n", "END"])
    assert matcher.feed("one\ntwo E") is None
    assert matcher.release() == "one\ntwo "
    assert matcher.feed("NDless") == 8
    assert (matcher.release(), matcher.matched) == ("", "END")
    assert matcher.feed("more") == 8
    assert matcher.release(final=True) == ""


def test_a_false_start_is_released():
    matcher = StopMatcher(["stop"])
    shown = []
    for delta in ("a st", "o", "ne s", "t"):
        assert matcher.feed(delta) is None
        shown.append(matcher.release())
    assert shown == ["a ", "", "stone ", ""]
    assert matcher.release(final=True) == "st"


@given(
    pieces=st.lists(st.text("ab", max_size=4), max_size=8),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_stopping_does_not_depend_on_how_the_text_arrives(pieces, stops):
    whole, matcher = "".join(pieces), StopMatcher(stops)
    shown = ""
    for piece in pieces:
        matcher.feed(piece)
        shown += matcher.release()
    shown += matcher.release(final=True)
    ends = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    expected = min(ends)[1] if ends else None
    assert matcher.cut == expected
    assert shown == whole[:expected]


@pytest.mark.parametrize("stops", ["stop", [""], [1]])
def test_stop_strings_must_be_strings(stops):
    assert refused(StopMatcher, stops) == (
        "stop",
        f"must be a list of non-empty strings, got {stops!r}",
    )


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer"])
def test_a_class_is_read_from_tokenizer_json_alone(tmp_path, name):
    as_json(byte_bpe, name)(tmp_path)
    text = load_text(tmp_path)
    assert text.decode(text.encode("Hello wo")) == "Hello wo"


def test_a_class_that_lacks_its_pieces_is_no_bug(tmp_path):
    as_json(byte_bpe, "GemmaTokenizer")(tmp_path)
    with pytest.raises(InvalidRequest, match=r"`model`: the tokenizer in .* cannot encode"):
        load_text(tmp_path)
