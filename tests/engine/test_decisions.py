"""`Engine.decide`: answers against plain logits, independence, costs, shared keys, errors."""

import math
import random

import pytest
import torch

import dlm
from dlm.engine.decisions import Choice, Level, Option, Predicate, QuestionTemplate, Score
from dlm.engine.decisions.canvases import ending
from dlm.engine.engine import Engine
from dlm.text import Text
from dlm.text.vocabulary import Vocabulary
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

FAMILIES = {
    "full": {},
    "shifted": {"shift": True, "qkv_bias": True},
    "block_causal": {"attention": "block_causal", "block_length": 8, "qk_norm": True},
    "shifted_blocks": {"attention": "block_causal", "block_length": 8, "shift": True},
}
VALUES = QuestionTemplate(choices="values")
QUESTIONS = (
    Predicate("spam", "Is it spam?"),
    Choice("team", "Which team?", (Option("sales", "orders"), "support", "a word of many pieces")),
    Score("rush", "How urgent is it?", ("can wait", Level("soon", "this week"), "now")),
    Choice("flag", "Is it flagged?", (True, False, "true")),
)


@pytest.fixture(scope="module")
def text():
    return dlm.load().text


def engine_of(family, text, **options):
    """Random weights and the tokenizer of the bundled models."""
    sizes = {"vocab_size": 1024, "mask_id": 4, "eos_ids": (3, 8)}
    decoder = random_decoder(tiny_spec(**sizes, **FAMILIES[family]))
    return Engine(decoder, info_of(decoder.spec), text, **options)


@pytest.fixture(params=FAMILIES, scope="module")
def engine(request, text):
    return engine_of(request.param, text)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(request):
    yield
    if "engine" in request.fixturenames:
        assert request.getfixturevalue("engine").kv.pages.in_use == 0


def distribution(answer):
    """The probabilities of an answer's labels."""
    if isinstance(answer, dlm.PredicateAnswer):
        return [answer.probability, 1 - answer.probability]
    if isinstance(answer, dlm.ChoiceAnswer):
        return [p for _, p in answer.probabilities]
    return list(answer.probabilities)


def log_probs(engine, ids, position):
    """The model's own distribution at a position of a canvas, from plain dense logits."""
    if engine.info.attention == "block_causal":  # nothing after the block is seen
        size = engine.info.alignment
        end = (position // size + 1) * size
        ids = [*ids[:end], *[ids[-1]] * (end - len(ids))]
    where = torch.zeros(1, len(ids), dtype=torch.bool)
    where[0, position] = True
    return engine.logits([ids], None, where)[0].double().log_softmax(-1)


def chained(engine, prompt, label, width, end):
    """A textbook chain: a token at a time, the rest of the hole masked, then the end."""
    total = 0.0
    for at in range(len(label) + (len(label) < width)):
        filled = [*label[:at], *[engine.info.mask_id] * (width - at)]
        found = log_probs(engine, [*prompt, *filled, *end], len(prompt) + at)
        wanted = [label[at]] if at < len(label) else list(engine.info.eos_ids)
        total += float(found[wanted].logsumexp(0))
    return total


# against plain logits


@pytest.mark.parametrize("values", [("red", "dark green", "Is it green?"), ("a", "ab", "c")])
def test_a_choice_by_values_is_the_chain_of_its_tokens(engine, values):
    question = Choice("color", "Which color?", values)
    user = "A frog.\n\nWhich color?\n" + "\n".join(f"- {v}" for v in values) + "\nAnswer with one."
    prompt = engine.text.encode_prompt(user)
    labels = [engine.text.encode_inside(value) for value in values]
    assert len(set(map(len, labels))) > 1
    width, end = max(map(len, labels)), ending(engine.text, engine.info)
    expected = [chained(engine, prompt, label, width, end) for label in labels]
    answer = engine.decide("A frog.", question, template=VALUES)["color"]
    weights = [math.exp(score) for score in expected]
    assert answer.label_mass == pytest.approx(sum(weights), rel=1e-4)
    shares = [weight / sum(weights) for weight in weights]
    assert distribution(answer) == pytest.approx(shares, rel=1e-4)
    assert answer.choice == values[shares.index(max(shares))]


def test_letters_are_read_from_one_position(engine):
    answer = engine.decide("A frog.", Choice("c", "Which?", ("x", "y", "z")))["c"]
    prompt = engine.text.encode_prompt(
        "A frog.\n\nWhich?\nA. x\nB. y\nC. z\nAnswer with the letter of a choice."
    )
    canvas = [*prompt, engine.info.mask_id, *ending(engine.text, engine.info)]
    ids = [engine.text.encode_inside(letter)[0] for letter in "ABC"]
    found = log_probs(engine, canvas, len(prompt))[ids].exp()
    assert answer.label_mass == pytest.approx(float(found.sum()), rel=1e-4)
    assert distribution(answer) == pytest.approx((found / found.sum()).tolist(), rel=1e-4)


def test_pseudo_likelihood_sees_the_other_tokens(text):
    engine = engine_of("full", text)
    values = ("red", "dark green")
    prompt = text.encode_prompt("A frog.\n\nWhich?\n- red\n- dark green\nAnswer with one.")
    labels = [text.encode_inside(value) for value in values]
    width, end = max(map(len, labels)), ending(text, engine.info)
    scores = []
    for label in labels:
        content = [*label, *[3] * (width - len(label))]
        total = 0.0
        for at in range(min(len(label) + 1, width)):
            ids = [*prompt, *content, *end]
            ids[len(prompt) + at] = engine.info.mask_id
            wanted = [label[at]] if at < len(label) else list(engine.info.eos_ids)
            total += float(log_probs(engine, ids, len(prompt) + at)[wanted].logsumexp(0))
        scores.append(total)
    question = Choice("c", "Which?", values)
    answer = engine.decide("A frog.", question, template=VALUES, scoring="pseudo")["c"]
    expected = torch.tensor(scores).softmax(0).tolist()
    assert distribution(answer) == pytest.approx(expected, rel=1e-4)
    assert answer.label_mass is None


def test_first_tokens_are_read_from_one_canvas(engine):
    question = Choice("c", "Which?", ("12", "345", "6"))
    chain = engine.decide("It.", question, template=VALUES)
    first = engine.decide("It.", question, template=VALUES, scoring="first")
    prompt = engine.text.encode_prompt("It.\n\nWhich?\n- 12\n- 345\n- 6\nAnswer with one.")
    canvas = [*prompt, *[engine.info.mask_id] * 3, *ending(engine.text, engine.info)]
    ids = [engine.text.encode_inside(value)[0] for value in ("12", "345", "6")]
    expected = log_probs(engine, canvas, len(prompt))[ids]
    assert distribution(first["c"]) == pytest.approx(expected.softmax(0).tolist(), rel=1e-4)
    assert first["c"].label_mass == pytest.approx(float(expected.exp().sum()), rel=1e-4)
    assert first["c"].label_mass > chain["c"].label_mass
    assert first.costs.nfe == 1
    alike = Choice("c", "Which?", ("12", "13", "6"))
    message = assert_refused(
        "scoring", engine.decide, "It.", alike, template=VALUES, scoring="first"
    )
    assert "questions[0]" in message


# distributions and what they come to


def test_answers_are_distributions_in_the_order_of_the_questions(engine):
    found = engine.decide("Win a phone!", QUESTIONS)
    assert [answer.name for answer in found] == [question.name for question in QUESTIONS]
    for answer in found:
        assert math.isclose(math.fsum(distribution(answer)), 1, abs_tol=1e-12)
        assert 0 < answer.label_mass <= 1
    rush = found["rush"]
    assert rush.score == pytest.approx(rush.probabilities[1] + 2 * rush.probabilities[2])
    values = [value for value, _ in found["flag"].probabilities]
    assert values == [True, False, "true"]
    assert type(values[0]) is bool


def test_temperature_sharpens_and_flattens(engine):
    one, cold, hot = (
        distribution(engine.decide("Win!", QUESTIONS[1], temperature=t)["team"])
        for t in (1.0, 0.25, 4.0)
    )
    for t, tempered in ((0.25, cold), (4.0, hot)):
        weights = [p ** (1 / t) for p in one]
        expected = [weight / sum(weights) for weight in weights]
        assert tempered == pytest.approx(expected, rel=1e-6)


def test_rotations_are_averaged_and_stop_at_the_number_of_orders(engine):
    choice = Choice("c", "Which?", ("x", "y", "z"))
    turned = [Choice("c", "Which?", v) for v in (("x", "y", "z"), ("y", "z", "x"), ("z", "x", "y"))]
    by_value = [dict(engine.decide("It.", one)["c"].probabilities) for one in turned]
    mean = {value: sum(found[value] for found in by_value) / 3 for value in "xyz"}
    for rotations in (3, 200):
        found = engine.decide("It.", choice, rotations=rotations)
        assert dict(found["c"].probabilities) == pytest.approx(mean, rel=1e-4)
        assert found.costs.nfe >= 3
    score = engine.decide("It.", QUESTIONS[2])["rush"].probabilities
    assert engine.decide("It.", QUESTIONS[2], rotations=4)["rush"].probabilities == score


# independence and joint canvases


def test_order_and_company_change_nothing_beyond_the_rounding_of_sums(engine):
    source, rng = "Dear winner, you have won a phone.", random.Random(0)
    for _ in range(6):
        asked = rng.sample(QUESTIONS, rng.randint(1, 4))
        together = engine.decide(source, asked)
        for question, answer in zip(asked, together, strict=True):
            own = engine.decide(source, question)[question.name]
            assert distribution(answer) == pytest.approx(distribution(own), rel=1e-4, abs=1e-7)


def test_order_and_company_change_no_bit_of_canvases_that_are_computed_alone(engine, monkeypatch):
    monkeypatch.setattr("dlm.engine.decisions.job.MOST_POSITIONS", 1)
    source = "Dear winner, you have won a phone."
    own = {q.name: engine.decide(source, q).answers[0] for q in QUESTIONS}
    for asked in (QUESTIONS, QUESTIONS[::-1], QUESTIONS[1:3]):
        found = engine.decide(source, asked)
        if engine.info.attention == "full":
            assert [own[q.name] for q in asked] == list(found)
        for question, answer in zip(asked, found, strict=True):  # shared keys are summed apart
            expected = distribution(own[question.name])
            assert distribution(answer) == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("family", ["full", "shifted"])
def test_joint_questions_share_one_canvas_and_one_forward(text, family):
    engine = engine_of(family, text)
    asked = [Score("s", "How good?", ("bad", "good")), Choice("c", "Which?", ("x", "y"))]
    found = engine.decide("It.", asked, joint=True)
    assert (found.costs.nfe, found.costs.forwards) == (1, 1)
    user = (
        "It.\n\n1. How good?\n0. bad\n1. good\nAnswer with the number of a level.\n"
        "2. Which?\nA. x\nB. y\nAnswer with the letter of a choice."
    )
    mask, inside = engine.info.mask_id, text.encode_inside
    spaced = [inside(" " + label) for label in "01AB"]
    assert len({tuple(ids[:-1]) for ids in spaced}) == 1  # a piece of its own for the space
    space = spaced[0][:-1]
    canvas = [*text.encode_prompt(user), *inside("1."), *space, mask, *inside("\n2."), *space, mask]
    second = len(canvas) - 1
    first = second - len(inside("\n2.")) - len(space) - 1
    canvas += ending(text, engine.info)
    for answer, at, labels in (("s", first, spaced[:2]), ("c", second, spaced[2:])):
        logp = log_probs(engine, canvas, at)[[ids[-1] for ids in labels]]
        assert distribution(found[answer]) == pytest.approx(logp.softmax(0).tolist(), rel=1e-4)


def test_joint_holes_may_be_named(text):
    engine = engine_of("full", text)
    asked = [Score("s", "How good?", ("bad", "good")), Choice("c", "Which?", ("x", "y"))]
    template = QuestionTemplate(joint_answer="{hole:c} [[mask:2]] then {hole:s}")
    found = engine.decide("It.", asked, joint=True, template=template)
    assert [answer.name for answer in found] == ["s", "c"]
    wrong = QuestionTemplate(joint_answer="{hole:c} {hole:d}")
    assert_refused("template.joint_answer", engine.decide, "It.", asked, joint=True, template=wrong)


# costs


@pytest.fixture
def counted(engine):
    """Calls of the model and positions of each."""
    positions = []
    hook = engine.model.register_forward_hook(
        lambda _, inputs, __: positions.append(len(inputs[0].positions))
    )
    yield positions
    hook.remove()


@pytest.mark.parametrize("options", [{}, {"rotations": 3}, {"template": VALUES}])
def test_costs_are_those_that_a_spy_counts(engine, counted, options):
    asked = QUESTIONS[:3]
    costs = engine.decide("Dear winner, " * 9, asked, **options).costs
    assert costs.forwards == len(counted)
    assert costs.token_forwards == sum(counted)
    assert costs.nfe >= costs.forwards
    assert costs.seconds > 0


def test_one_row_for_each_question_of_single_tokens(engine):
    asked = [Choice(f"c{n}", f"Which of {n}?", ("x", "y")) for n in range(5)]
    costs = engine.decide("It.", asked).costs
    prefill = engine.info.attention == "block_causal" and costs.cached_tokens > 0
    assert costs.nfe == 5 + prefill


def test_labels_share_the_canvases_of_equal_beginnings(text):
    engine, values = engine_of("full", text), ("12", "13", "245", "246", "3")
    assert [len(text.encode_inside(value)) for value in values] == [2, 2, 3, 3, 1]
    beginnings = {(), ("1",), ("1", "2"), ("1", "3"), ("2",), ("2", "4"), ("3",)}
    found = engine.decide("It.", Choice("c", "Which?", values), template=VALUES)
    assert found.costs.nfe == len(beginnings)


def test_equal_canvases_are_computed_once(text):
    asked = [Choice(f"c{n}", "Which?", ("x", "y")) for n in range(5)]
    assert engine_of("full", text).decide("It.", asked).costs.nfe == 1


def test_forwards_are_of_bounded_size(engine, counted, monkeypatch):
    monkeypatch.setattr("dlm.engine.decisions.job.MOST_POSITIONS", 200)
    asked = [Choice(f"c{n}", f"Which of {n}?", ("x", "y")) for n in range(12)]
    engine.decide("Dear winner, you have won.", asked)
    assert max(counted) <= 200
    assert len(counted) > 1


# shared keys of block-causal models


def test_the_input_is_computed_once_for_all_questions(text, counted_blocks):
    engine, positions = counted_blocks
    source = "Dear winner, you have won a phone. " * 12
    asked = [Choice(f"c{n}", f"Which of {n}?", ("x", "y")) for n in range(6)]
    costs = engine.decide(source, asked).costs
    shared = costs.cached_tokens // 5
    assert shared >= len(text.encode_inside(source)) // 16 * 16 - 16
    assert shared % 16 == 0
    assert positions[0] == shared
    whole = max(len(text.encode_prompt(source)), shared)
    assert sum(positions) < 2 * whole + 6 * 60


@pytest.fixture
def counted_blocks(text):
    engine, positions = engine_of("block_causal", text), []
    engine.model.register_forward_hook(
        lambda _, inputs, __: positions.append(len(inputs[0].positions))
    )
    return engine, positions


@pytest.mark.parametrize("family", ["block_causal", "shifted_blocks"])
def test_nothing_after_the_block_of_the_hole_matters(text, family):
    engine = engine_of(family, text)
    question = Choice("c", "Which?", ("x", "y"))
    tails = ("{hole}" + "\nand much more text follows it" * n for n in (3, 1))
    first, second = (
        engine.decide("It.", question, template=QuestionTemplate(answer=tail))["c"]
        for tail in tails
    )
    assert first == second


def test_the_bundled_block_model_decides(engine):
    blocks = dlm.load("tiny-block")
    asked = [Choice(f"c{n}", f"Which of {n}?", ("x", "y")) for n in range(3)]
    together = blocks.decide("Compute 3+4. " * 5, asked)
    assert together.costs.cached_tokens > 0
    own = blocks.decide("Compute 3+4. " * 5, asked[0])
    assert distribution(own["c0"]) == pytest.approx(distribution(together["c0"]), rel=1e-4)
    assert blocks.kv.pages.in_use == 0


# limits and errors


def assert_refused(param, call, *arguments, **options):
    with pytest.raises(dlm.InvalidRequest) as caught:
        call(*arguments, **options)
    assert caught.value.param == param, caught.value
    return caught.value.message


def one(**changes):
    return Choice(**{"name": "c", "instructions": "Which?", "choices": ("x", "y")} | changes)


@pytest.mark.parametrize(
    ("param", "questions"),
    [
        ("questions", []),
        ("questions", "Is it?"),
        ("questions", [one(name=f"c{n}") for n in range(401)]),
        ("questions[1]", [one(), "Is it?"]),
        ("questions[1].name", [one(), one()]),
        ("questions[0].name", [one(name=3)]),
        ("questions[0].instructions", [one(instructions=None)]),
        ("questions[0].instructions", [one(instructions="\ud800")]),
        ("questions[0].choices", [one(choices=("x",))]),
        ("questions[0].choices", [one(choices="xy")]),
        ("questions[0].choices", [one(choices=[str(n) for n in range(256)])]),
        ("questions[0].choices[1].value", [one(choices=("x", ""))]),
        ("questions[0].choices[1].value", [one(choices=("x", 2))]),
        ("questions[1].choices[2].value", [one(name="a"), one(choices=("x", "y", "x"))]),
        ("questions[0].choices[0].description", [one(choices=(Option("x", 1), "y"))]),
        ("questions[0].levels", [Score("s", "How?", [str(n) for n in range(11)])]),
        ("questions[0].levels", [Score("s", "How?", ["low"])]),
        ("questions[0].levels[1].label", [Score("s", "How?", ["low", " "])]),
    ],
)
def test_wrong_questions_are_refused_by_name(text, param, questions):
    assert_refused(param, engine_of("full", text).decide, "It.", questions)


@pytest.mark.parametrize(
    ("param", "source", "options"),
    [
        ("input", 3, {}),
        ("input", "\ud800", {}),
        ("input", [], {}),
        ("input[0]", ["It."], {}),
        ("input[0].content", [{"role": "user", "content": 3}], {}),
        ("joint", "It.", {"joint": "yes"}),
        ("rotations", "It.", {"rotations": 0}),
        ("temperature", "It.", {"temperature": 0.0}),
        ("temperature", "It.", {"temperature": math.nan}),
        ("scoring", "It.", {"scoring": "best"}),
        ("options", "It.", {"roations": 2}),
        ("template", "It.", {"template": "{hole}"}),
        ("template", "It.", {"template": {"anser": "{hole}"}}),
        ("template.answer", "It.", {"template": {"answer": "no hole"}}),
        ("template.answer", "It.", {"template": {"answer": "{hole}{hole}"}}),
        ("template.answer", "It.", {"template": {"answer": "[[mask:0]]{hole}"}}),
        ("template.user", "It.", {"template": {"user": "{input}"}}),
        ("template.choices", "It.", {"template": {"choices": "words"}}),
        ("template", "It.", {"template": {"end": [5000]}}),
        ("template.end", "It.", {"template": {"end": ["<eos>"]}}),
    ],
)
def test_wrong_options_are_refused_by_name(text, param, source, options):
    assert_refused(param, engine_of("full", text).decide, source, one(), **options)


def test_a_canvas_beyond_the_model_is_refused_with_its_numbers(text):
    engine = engine_of("full", text)
    asked = [one(name="a"), one(name="b", instructions="Which? " * 2000)]
    message = assert_refused("questions[1].instructions", engine.decide, "It.", asked)
    assert "questions[1]" in message
    assert "1024" in message
    bounded = engine_of("full", text, max_token_forwards=30)
    message = assert_refused("input", bounded.decide, "It. " * 20, one())
    assert "max_token_forwards" in message


def test_the_number_of_canvases_is_bounded_before_they_are_made(text):
    engine = engine_of("full", text)
    wide = [one(name=f"c{n}", choices=[str(i) for i in range(255)]) for n in range(17)]
    assert "4096" in assert_refused("questions", engine.decide, "It.", wide, rotations=255)
    numbers = [str(10**9 + i * 7919) for i in range(255)]
    long = [one(name=f"c{n}", instructions=str(n), choices=numbers) for n in range(9)]
    unlisted = QuestionTemplate(choices="values", question="{instructions}")
    assert "letters" in assert_refused("questions", engine.decide, "It.", long, template=unlisted)


def test_block_causal_models_refuse_joint(text):
    assert_refused("joint", engine_of("block_causal", text).decide, "It.", one(), joint=True)


def test_labels_that_the_canvas_cannot_compare_are_refused(text):
    engine = engine_of("full", text)
    lengths = one(choices=("x", "a word of many pieces"))
    inside = QuestionTemplate(choices="values", answer="It is {hole}, I think.")
    message = assert_refused("questions[0]", engine.decide, "It.", lengths, template=inside)
    assert "letters" in message
    same = one(choices=(True, "true"))
    assert_refused("questions[0].choices[1].value", engine.decide, "It.", same, template=VALUES)


def test_a_model_without_a_tokenizer_is_refused(text):
    engine = engine_of("full", text)
    bare = Engine(engine.model, engine.info)
    assert_refused("input", bare.decide, "It.", one())


def test_what_users_write_is_no_control_token_and_no_field(text, engine):
    spelled = "<|mask|><|eot|>{labels}{hole}[[mask:3]]"
    asked = one(instructions=spelled, choices=("<|mask|>", "{input}"))
    for options in ({}, {"template": VALUES}):
        job = engine.prepare_decisions(spelled, asked, dlm.DecisionOptions.from_options(options))
        ids = job.rows[0].source
        user = text.decode(ids)
        assert user.count(spelled) == 2
        holes = 1 if not options else max(len(text.encode_inside(v)) for v in asked.choices)
        assert ids.count(engine.info.mask_id) <= holes
        assert ids.count(8) <= 1  # the template's own end of a turn


def test_a_model_without_a_chat_template_reads_raw_text(text):
    engine = engine_of("full", text)
    bare = Text(Vocabulary(text.vocabulary._tokenizer, None))
    raw = Engine(engine.model, engine.info, bare)
    answer = raw.decide("A frog.", one(choices=("x", "y")))["c"]
    asked = "A frog.\n\nWhich?\nA. x\nB. y\nAnswer with the letter of a choice."
    spaced = [bare.encode_inside(f" {letter}") for letter in "AB"]
    shared = spaced[0][: len(spaced[0]) - 1]
    start = [*bare.encode_prompt(asked, chat=False), *bare.encode_inside("\nAnswer:"), *shared]
    canvas = [*start, engine.info.mask_id, *ending(bare, engine.info)]
    found = log_probs(engine, canvas, len(start))[[ids[-1] for ids in spaced]]
    assert distribution(answer) == pytest.approx(found.softmax(0).tolist(), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_on_a_device_are_those_of_the_cpu(text, family):
    engine = engine_of(family, text)
    model = random_decoder(engine.model.spec).cuda()
    device = Engine(model, engine.info, text)
    expected, found = (one.decide("Dear winner. " * 9, QUESTIONS) for one in (engine, device))
    for ours, theirs in zip(found, expected, strict=True):
        assert distribution(ours) == pytest.approx(distribution(theirs), rel=1e-2, abs=1e-4)
    assert device.kv.pages.in_use == 0


# memory


def test_a_small_pool_takes_more_forwards_and_a_tiny_one_is_told(text):
    asked = [one(name=f"c{n}", instructions=f"Which of {n}?") for n in range(8)]
    wide = engine_of("full", text)
    page = wide.kv.pages.page_bytes
    expected = wide.decide("It.", asked)
    small = engine_of("full", text, kv_bytes=14 * page)
    found = small.decide("It.", asked)
    assert found.costs.forwards > expected.costs.forwards
    for ours, theirs in zip(found, expected, strict=True):
        assert distribution(ours) == pytest.approx(distribution(theirs), rel=1e-4)
    assert small.kv.pages.in_use == 0
    with pytest.raises(dlm.Unavailable):
        engine_of("full", text, kv_bytes=2 * page).decide("It.", asked)


def test_broken_weights_are_told_and_pages_given_back(text):
    engine = engine_of("block_causal", text)
    with torch.no_grad():
        engine.model.head.weight.fill_(math.nan)
    asked = [one(name=f"c{n}", instructions=f"Which of {n}?") for n in range(3)]
    with pytest.raises(dlm.CheckpointError):
        engine.decide("Dear winner, you have won a phone. " * 5, asked)
    assert engine.kv.pages.in_use == 0


def test_decisions_run_beside_rows_that_are_being_decoded(text):
    engine = engine_of("full", text)
    options = {"max_new_tokens": 24, "stop": "none", "blocks": "fixed(8)"}
    alone = engine.generate("Say a word.", **options).ids
    request = engine.submit("Say a word.", **options)
    expected = engine_of("full", text).decide("It.", one())["c"]
    for _ in range(4):
        engine.step()
        assert distribution(engine.decide("It.", one())["c"]) == pytest.approx(
            distribution(expected), rel=1e-5
        )
    assert request.result().ids == alone
    assert engine.kv.pages.in_use == 0
