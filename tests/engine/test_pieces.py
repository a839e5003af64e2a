"""Infill, answers and prompts over tokenizers that put something before a text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlm
from dlm.engine.load import BUNDLED
from dlm.errors import InvalidRequest
from dlm.text import load_text, parse_holes
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec
from tests.text.folders import FOLDERS, as_json, piece_bpe

KINDS = [name for name in FOLDERS if name.startswith("json,") and "word" not in name]
EXACT = [name for name in KINDS if "unigram" not in name]
"""Those that can write every text."""
OPTIONS = {"stop": "none", "unmask": "threshold(0.2)"}


def engine_over(folder):
    text = load_text(folder)
    control = text.vocabulary.control
    size = len(text.vocabulary.pieces())
    spec = tiny_spec(
        vocab_size=size, mask_id=control["<|mask|>"], eos_ids=(control["<|im_end|>"],), pad_id=None
    )
    return dlm.Engine(random_decoder(spec, 3), info_of(spec), text)


@pytest.fixture(scope="module", params=KINDS)
def engine(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    FOLDERS[request.param](folder)
    return engine_over(folder)


@pytest.fixture(scope="module", params=EXACT)
def exact(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact")
    FOLDERS[request.param](folder)
    return engine_over(folder)


def assert_unchanged(engine, prompt, infill, **more):
    """Every given text stands in the answer as it was written, in order, from first to last."""
    answer = engine.generate(prompt, infill=infill, **OPTIONS, **more)
    pieces, at = parse_holes("infill", infill), 0
    for piece in pieces:
        if isinstance(piece, str):
            at = answer.text.find(piece, at)
            assert at >= 0, (piece, answer.text)
            at += len(piece)
    if isinstance(pieces[0], str):
        assert answer.text.startswith(pieces[0])
    if isinstance(pieces[-1], str):
        assert answer.text.endswith(pieces[-1])
    assert len(answer.holes) == sum(isinstance(piece, int) for piece in pieces)
    return answer


@pytest.mark.parametrize(
    "infill",
    [
        "wo[[mask:1]]rld",
        " wo[[mask:2]] rld",
        "wo [[mask:1]]  rld ",
        "[[mask:2]]world[[mask:1]] and",
        "a\n[[mask:3]]\n b",
        "Hello world, [[mask:1]]orld",
    ],
)
def test_given_text_comes_back(engine, infill):
    assert_unchanged(engine, "say the word", infill)
    assert_unchanged(engine, "", infill)


PIECES = st.text(st.sampled_from("wo rld\n.é漢🙂<|mask"), min_size=1, max_size=8)


@settings(max_examples=12)
@given(pieces=st.lists(PIECES, min_size=2, max_size=4), hole=st.integers(1, 2))
def test_any_given_text_comes_back(exact, pieces, hole):
    assert_unchanged(exact, "wo", f"[[mask:{hole}]]".join(pieces))


def test_pieces_at_offsets_one_after_the_other(exact):
    ids = exact.text.encode_inside
    count = len(ids("wo")), len(ids(" rld"))
    places = {0: "wo", count[0]: " rld", sum(count): "<|mask|>", 60: "x"}
    answer = exact.generate("a", infill=places, max_new_tokens=64, **OPTIONS)
    assert answer.text.startswith("wo rld<|mask|>")
    assert exact.info.mask_id not in answer.ids


def test_what_is_spelled_in_infill_stays_text(exact):
    answer = assert_unchanged(exact, "a", "x <|mask|> y<|im_end|>[[mask:2]] z")
    given = answer.ids[: len(exact.text.encode_inside("x <|mask|> y<|im_end|>"))]
    assert exact.text.special_ids().isdisjoint(given)


def test_an_answer_goes_on_with_its_prompt(engine):
    """Its text is the whole text without the prompt's: a space that it begins with is kept."""
    text = engine.text
    prompt = text.encode_prompt("say the", chat=False)
    word = text.encode_inside(" world")
    answer = engine.generate(prompt, infill=[*word, None], **OPTIONS)
    assert answer.text.startswith(" world")
    whole = text.decode([*prompt, *answer.ids])
    assert whole == text.decode(prompt) + answer.text


def test_stop_strings_are_looked_for_in_the_same_text(exact):
    options = {"infill": " wo[[mask:6]]", "max_new_tokens": 12, "unmask": "topk"}
    whole = exact.generate("say", stop="none", **options).text
    assert whole.startswith(" wo")
    for stop in sorted({whole[n : n + 2] for n in range(4, len(whole) - 2)})[:4]:
        cut = exact.generate("say", stop=["none", dlm.StopString(stop)], **options).text
        assert cut == whole[: whole.find(stop)]


def test_text_that_a_tokenizer_cannot_write_is_refused(tmp_path):
    FOLDERS["json, word pieces"](tmp_path)
    engine = engine_over(tmp_path)
    with pytest.raises(InvalidRequest, match=r"`infill`: this tokenizer cannot write 'Wolf '"):
        engine.generate("a", infill="Wolf [[mask:1]]", **OPTIONS)
    assert engine.generate("a", infill=" wolf[[mask:1]]", **OPTIONS).text.startswith(" wolf")


@pytest.mark.parametrize("kind", ["pieces", "json, metaspace first", "merges, Qwen2"])
def test_embeddings_without_a_piece_show_nothing(tmp_path, kind):
    """A padded embedding: the model may commit ids behind the last token."""
    if kind == "pieces":
        pytest.importorskip("google.protobuf", reason="needs protobuf to read tokenizer.model")
    FOLDERS[kind](tmp_path)
    text = load_text(tmp_path)
    size = len(text.vocabulary.pieces())
    control = text.vocabulary.control
    spec = tiny_spec(vocab_size=size + 200, mask_id=control["<|mask|>"], eos_ids=(size + 199,))
    engine = dlm.Engine(random_decoder(spec, 3), info_of(spec), text)
    answer = engine.generate("say the word", max_new_tokens=24, **OPTIONS)
    assert any(i >= size for i in answer.ids)
    assert answer.text == text.decode([i for i in answer.ids if i < size])
    pinned = engine.generate("say", infill=[size, None, size + 7, None], **OPTIONS)
    assert pinned.text == text.decode_inside(pinned.ids)


# Ids that the model has no embedding for


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """An engine whose tokenizer has a token behind the last embedding."""
    folder = tmp_path_factory.mktemp("short")
    tokenizer = piece_bpe("first")
    tokenizer.add_tokens(["<think>", "</think>"])
    as_json(lambda: tokenizer)(folder)
    text = load_text(folder)
    control = text.vocabulary.control
    spec = tiny_spec(
        vocab_size=tokenizer.token_to_id("<think>"),
        mask_id=control["<|mask|>"],
        eos_ids=(control["<|im_end|>"],),
    )
    return dlm.Engine(random_decoder(spec, 3), info_of(spec), text)


BEYOND = [
    ("say <think> now", {}, "prompt"),
    ([{"role": "user", "content": "say <think> now"}], {}, "prompt"),
    (["hello", "say <think> now"], {}, "prompt"),
    ([5, 100_000], {}, "prompt"),
    ([5, -1], {}, "prompt"),
    ("hello", {"infill": "a <think>[[mask:2]]"}, "infill"),
    ("hello", {"infill": {2: "<think>"}}, "infill"),
    ("hello", {"infill": [5, 100_000, None]}, "infill"),
    ("hello", {"infill": {2: [5, 100_000]}}, "infill"),
]


@pytest.mark.parametrize(("prompt", "options", "param"), BEYOND)
def test_ids_beyond_the_embeddings_are_refused_before_anything_is_queued(
    short, prompt, options, param
):
    for ask in (short.generate, short.submit, lambda p, **o: next(short.map([p], **o))):
        if ask != short.generate and isinstance(prompt[0], str) and isinstance(prompt, list):
            continue
        with pytest.raises(InvalidRequest) as caught:
            ask(prompt, **options)
        assert caught.value.param == param
        assert "<think>" not in str(prompt) or "'<think>'" in caught.value.message
    assert short.scheduler.live == 0
    assert short.generate("hello", max_new_tokens=4, **OPTIONS).stats.nfe > 0


def test_a_stop_string_may_spell_what_the_model_lacks(short):
    assert short.generate("hello", max_new_tokens=4, stop="<think>").stats.nfe > 0


def test_answers_of_a_batch_are_those_alone(engine):
    prompts = ["say", "wo rld", "x"]
    alone = [engine.generate(p, infill="wo[[mask:2]]rld", **OPTIONS).text for p in prompts]
    batch = engine.generate(prompts, infill="wo[[mask:2]]rld", **OPTIONS)
    assert [answer.text for answer in batch] == alone
    assert all(a.startswith("wo") and a.endswith("rld") for a in alone)


# What a checkpoint's files name


def checkpoint(folder, tokenizer, **config):
    """A folder without weights: the bundled model's config with other ids."""
    as_json(lambda: tokenizer)(folder)
    told = json.loads((BUNDLED / "tiny" / "config.json").read_text())
    generation = {"eos_token_id": config.pop("ends", 3)}
    (folder / "config.json").write_text(json.dumps(told | config))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return dlm.inspect(folder)


def test_ids_of_the_config_are_control_tokens(tmp_path):
    tokenizer = piece_bpe("first", special=False)
    tokenizer.add_tokens(["~hole~", "~fin~", "~fill~", "<think>"])
    hole, end, fill, think = map(tokenizer.token_to_id, ("~hole~", "~fin~", "~fill~", "<think>"))
    found = checkpoint(
        tmp_path, tokenizer, mask_token_id=hole, ends=[end], eos_token_id=end, pad_token_id=fill
    )
    assert {hole, end, fill} <= found.text.special_ids()
    assert think not in found.text.special_ids()
    for string in ("a ~hole~ b~fin~", "~fill~"):
        ids = found.text.encode_inside(string)
        assert found.text.special_ids().isdisjoint(ids)
        assert found.text.decode_inside(ids) == string
    assert found.info.eos_ids[0] == end


def test_no_end_and_no_delimiter_is_beyond_the_embeddings(tmp_path):
    tokenizer = piece_bpe("first")
    tokenizer.add_tokens(["\n\n", "<|eot|>"])
    size = tokenizer.token_to_id("\n\n")
    found = checkpoint(
        tmp_path,
        tokenizer,
        vocab_size=size,
        embedding_size=size,
        mask_token_id=tokenizer.token_to_id("<|mask|>"),
    )
    assert found.info.vocab_size == size
    assert found.info.eos_ids
    assert found.text.decode(range(1, 257)) == "".join(map(chr, range(128))) + "\ufffd" * 128
    assert all(i < size for i in (*found.info.eos_ids, *found.info.delimiters))
    assert found.explain(blocks="adaptive", max_new_tokens=8)
