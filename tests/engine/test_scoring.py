"""`Engine.score`: against textbook twins over plain logits, in company, costs, errors, asyncio."""

import asyncio
import math
import random
from dataclasses import replace

import pytest
import torch

import dlm
from dlm import AsyncEngine, LogLikelihood, ScoringOptions
from dlm.decode.auxiliary import Auxiliary
from dlm.engine.engine import Engine
from dlm.engine.scoring import ScoringJob
from dlm.engine.scoring.rows import position_sets
from dlm.model.kv_store import KVPool
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

MASK = 4
FAMILIES = {
    "full": {},
    "shifted": {"shift": True, "qkv_bias": True},
    "block_causal": {"attention": "block_causal", "block_length": 8, "qk_norm": True},
    "shifted_blocks": {"attention": "block_causal", "block_length": 8, "shift": True},
}
WAYS = [
    {},
    {"method": "pseudo"},
    {"method": "pseudo", "rate": 0.3},
    {"method": "pseudo", "rate": 1},
]


def engine_of(family, text=None, **options):
    decoder = random_decoder(
        tiny_spec(vocab_size=1024, mask_id=MASK, eos_ids=(3, 8), **FAMILIES[family])
    )
    return Engine(decoder, info_of(decoder.spec), text, **options)


@pytest.fixture(params=FAMILIES, scope="module")
def engine(request):
    return engine_of(request.param)


@pytest.fixture(scope="module")
def text():
    return dlm.load().text


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(request):
    yield
    if "engine" in request.fixturenames:
        assert request.getfixturevalue("engine").kv.pages.in_use == 0


def ids_of(seed, count):
    return random.Random(seed).choices(range(10, 1024), k=count)


def pairs_of(count):
    """Prompts and texts of many lengths; every third prompt is that of all its kind."""
    sizes = [(1 + 7 * n % 30, 1 + 5 * n % 21) for n in range(count)]
    return [
        (ids_of(0, 19) if n % 3 == 0 else ids_of(n, before), ids_of(100 + n, after))
        for n, (before, after) in enumerate(sizes)
    ]


def plain(engine, canvas, position):
    """The log-distribution at a position, from dense logits of the whole canvas."""
    size = engine.info.alignment
    canvas = [*canvas, *[MASK] * (-len(canvas) % size)]
    if engine.info.attention == "block_causal":
        canvas = canvas[: (position // size + 1) * size]
    where = torch.zeros(1, len(canvas), dtype=torch.bool)
    where[0, position] = True
    return engine.logits([canvas], None, where)[0].double().log_softmax(-1)


def chained(engine, prompt, answer):
    """The textbook chain: a token at a time, all after it masked."""
    for at, token in enumerate(answer):
        canvas = [*prompt, *answer[:at], *[MASK] * (len(answer) - at)]
        yield plain(engine, canvas, len(prompt) + at), token


def pseudo(engine, prompt, answer, rate):
    """The textbook pseudo-likelihood: each set masked; in blocks, no mask before the block."""
    found = {}
    for chosen in position_sets(len(answer), rate, 0):
        for at in chosen:
            block = (len(prompt) + at) // engine.info.alignment
            blocks = {i: (len(prompt) + i) // engine.info.alignment for i in chosen}
            causal = engine.info.attention == "block_causal"
            hidden = {i for i in chosen if not causal or blocks[i] == block}
            canvas = [*prompt, *(MASK if i in hidden else t for i, t in enumerate(answer))]
            found[at] = plain(engine, canvas, len(prompt) + at), answer[at]
    return [found[at] for at in range(len(answer))]


def twin(engine, prompt, answer, options):
    if options.get("method") == "pseudo":
        return pseudo(engine, prompt, answer, options.get("rate"))
    return list(chained(engine, prompt, answer))


@pytest.mark.parametrize("options", WAYS)
def test_it_equals_the_textbook(engine, options):
    for prompt, answer in pairs_of(4):
        found = engine.score(prompt, answer, top_logprobs=3, **options)
        expected = twin(engine, prompt, answer, options)
        logs = [float(logp[token]) for logp, token in expected]
        assert found.logprobs == pytest.approx(logs, rel=1e-5)
        assert found.logprob == pytest.approx(sum(logs), abs=1e-4)
        assert found.tokens == tuple(answer)
        for own, (logp, _) in zip(found.top, expected, strict=True):
            logp[MASK] = -math.inf
            best = logp.topk(3)
            assert [token for token, _ in own] == best.indices.tolist()
            assert [p for _, p in own] == pytest.approx(best.values.tolist(), abs=1e-5)


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("bounds", [{}, {"max_rows": 3}, {"max_token_forwards": 64}])
@pytest.mark.parametrize("family", FAMILIES)
def test_company_changes_nothing(family, options, bounds):
    engine, pairs = engine_of(family, **bounds), pairs_of(12)
    alone = [engine.score(*pair, **options) for pair in pairs]
    order = list(range(12))
    random.Random(1).shuffle(order)
    together = engine.score_all([pairs[n] for n in order], **options)
    for n, found in zip(order, together, strict=True):
        assert found.logprobs == pytest.approx(alone[n].logprobs, rel=1e-6, abs=1e-6)
        assert found.tokens == alone[n].tokens
        assert found.greedy == alone[n].greedy


def test_greedy_texts_are_told(engine):
    prompt, answer = ids_of(1, 9), []
    for _ in range(6):
        logp = plain(engine, [*prompt, *answer, *[MASK] * (6 - len(answer))], 9 + len(answer))
        logp[MASK] = -math.inf
        answer.append(int(logp.argmax()))
    assert engine.score(prompt, answer).greedy
    answer[-1] = 10 if answer[-1] != 10 else 11
    assert not engine.score(prompt, answer).greedy


@pytest.mark.parametrize("family", ["full", "block_causal"])
def test_chains_of_all_texts_sum_up_to_one(family):
    """Four ids and the mask, texts of three tokens."""
    spec = tiny_spec(vocab_size=5, mask_id=MASK, eos_ids=(3,), pad_id=0, **FAMILIES[family])
    decoder = random_decoder(spec)
    engine = Engine(decoder, info_of(spec))
    texts = [[a, b, c] for a in range(4) for b in range(4) for c in range(4)]
    found = engine.score_all([([1, 2, 3, 1, 2, 3, 1], text) for text in texts], top_logprobs=4)
    rest = {tuple(text): one for text, one in zip(texts, found, strict=True)}
    total = 0.0
    for one in rest.values():  # without the share that the model gives to the mask
        shares = [math.fsum(math.exp(p) for _, p in own) for own in one.top]
        total += math.exp(one.logprob) / math.prod(shares)
    assert total == pytest.approx(1, abs=1e-5)


# costs


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_nfe_are_those_of_a_spy(family, options, monkeypatch):
    engine, rows, calls = engine_of(family, max_rows=5), [], []
    forward = dlm.engine.canvas_reader.CanvasReader._forward

    def spied(reader, canvases, segments, pages):
        rows.append(len(canvases))
        return forward(reader, canvases, segments, pages)

    monkeypatch.setattr("dlm.engine.canvas_reader.CanvasReader._forward", spied)
    hook = engine.model.register_forward_hook(lambda *_: calls.append(1))
    pairs = [*pairs_of(9), (ids_of(7, 40), ids_of(8, 60)), (ids_of(7, 40), ids_of(8, 60))]
    found = engine.score_all(pairs, **options)
    hook.remove()
    assert sum(one.nfe for one in found) == sum(rows)
    assert len(rows) == len(calls)
    assert max(rows) <= 5
    assert found[-1].nfe == 0  # the same as the one before
    assert found[-1].logprobs == found[-2].logprobs


def test_a_canvas_a_token_or_a_set():
    engine, pair = engine_of("full"), (ids_of(1, 9), ids_of(2, 12))
    assert engine.score(*pair).nfe == 12
    assert engine.score(*pair, method="pseudo").nfe == 12
    assert engine.score(*pair, method="pseudo", rate=0.25).nfe == 4
    assert engine_of("block_causal").score(*pair).nfe == 12


def test_a_long_text_of_a_block_causal_model_is_not_computed_anew_for_each_token():
    engine, positions = engine_of("block_causal"), []
    engine.model.register_forward_hook(lambda _, i, __: positions.append(len(i[0].positions)))
    engine.score([], ids_of(3, 240))
    whole = sum((at // 8 + 1) * 8 for at in range(240))
    assert sum(positions) < whole / 3


def test_candidates_share_canvases_of_equal_beginnings():
    engine, prompt = engine_of("full"), ids_of(1, 9)
    answers = [[11, 12, 13], [11, 12, 14], [11, 15, 14], [11, 15]]
    found = engine.score_all([(prompt, answer) for answer in answers])
    assert [one.nfe for one in found] == [3, 0, 1, 2]  # canvases of three tokens and of two


def test_an_engine_with_auxiliary_models_leaves_them_alone(engine):
    assert engine.score(ids_of(1, 5), ids_of(2, 3)).nfe == 3
    spec = tiny_spec(vocab_size=1024, attention="causal", mask_id=None, eos_ids=(3,))
    helper = random_decoder(spec, 3)
    calls = []
    helper.register_forward_hook(lambda *_: calls.append(1))
    pool = KVPool(spec, device=torch.device("cpu"), dtype=torch.float32)
    two = Engine(engine.model, engine.info, aux={"ar": Auxiliary("ar", helper, pool, 1024)})
    assert two.score(ids_of(1, 5), ids_of(2, 3)) == engine.score(ids_of(1, 5), ids_of(2, 3))
    assert not calls


# sets of positions


@pytest.mark.parametrize("rate", [None, 1, 0.5, 1 / 3, 0.1, 0.07, 0.001])
@pytest.mark.parametrize("length", [0, 1, 2, 10, 31])
def test_sets_cover_each_position_once(rate, length):
    sets = position_sets(length, rate, 5)
    assert sorted(at for own in sets for at in own) == list(range(length))
    most = length if rate is None else min(length, math.ceil(round(1 / rate, 6)))
    assert len(sets) == most
    assert not sets or max(map(len, sets)) - min(map(len, sets)) <= 1
    assert all(own == sorted(own) for own in sets)
    assert sets == position_sets(length, rate, 5)


def test_sets_follow_the_seed():
    assert position_sets(30, 0.2, 0) != position_sets(30, 0.2, 1)


# prompts, answers and errors


def test_texts_messages_and_ids_are_one(text):
    engine = engine_of("full", text)
    prompt, answer = text.encode_prompt("Say it."), text.encode_inside("it is")
    expected = engine.score(prompt, answer)
    assert isinstance(expected, LogLikelihood)
    assert engine.score("Say it.", "it is") == expected
    assert engine.score([{"role": "user", "content": "Say it."}], "it is") == expected
    assert engine.score(torch.tensor(prompt), torch.tensor(answer)) == expected


@pytest.mark.parametrize("prompt", [None, "", []])
def test_an_empty_prompt_where_the_model_allows_it(text, prompt):
    begin = text.encode_prompt("", chat=False)
    engine = engine_of("full", text)
    wanted = [
        float(logp[t]) for logp, t in chained(engine, begin if prompt == "" else [], [20, 21])
    ]
    assert engine.score(prompt, [20, 21]).logprobs == pytest.approx(wanted, abs=1e-5)


def test_an_empty_answer_is_certain(engine):
    found = engine.score([5, 6], [])
    assert (found.logprob, found.logprobs, found.greedy, found.nfe) == (0.0, (), True, 0)
    assert engine.score_all([]) == []


def refused(param, function, *arguments, **options):
    with pytest.raises(dlm.InvalidRequest) as error:
        function(*arguments, **options)
    assert error.value.param == param
    return error.value.message


@pytest.mark.parametrize(
    ("param", "options"),
    [
        ("method", {"method": "elbo"}),
        ("rate", {"method": "pseudo", "rate": 0}),
        ("rate", {"method": "pseudo", "rate": 1.5}),
        ("rate", {"method": "pseudo", "rate": math.nan}),
        ("rate", {"rate": 0.5}),
        ("seed", {"seed": -1}),
        ("top_logprobs", {"top_logprobs": 21}),
    ],
)
def test_wrong_options_are_refused(engine, param, options):
    refused(param, engine.score, [5, 6], [7], **options)
    refused(param, engine.score_all, [([5, 6], [7])], **options)


def test_wrong_pairs_are_refused(engine):
    refused("answer", engine.score, [5], [7, MASK])
    refused("answer", engine.score, [5], [1024])
    refused("answer", engine.score, [5], "no tokenizer")
    refused("answer", engine.score, [5], [1.5])
    refused("answer", engine.score, [5], None)
    refused("prompt", engine.score, [5, 2000], [7])
    refused("pairs[1].answer", engine.score_all, [([5], [7]), ([5], [MASK])])
    refused("pairs[1].prompt", engine.score_all, [([5], [7]), ([-5], [7])])
    longest = engine.info.max_length
    assert str(longest) in refused("answer", engine.score, [5], [7] * longest)
    assert str(longest) in refused("prompt", engine.score, [5] * longest, [7])
    if engine.info.shift:
        refused("prompt", engine.score, [], [7])


def test_a_model_without_a_mask_is_refused():
    decoder = random_decoder(tiny_spec(mask_id=None))
    info = replace(info_of(tiny_spec()), mask_id=None)
    refused("model", Engine(decoder, info).score, [5], [7])


def test_forwards_have_the_bounds_of_the_engine():
    engine, positions = engine_of("full", max_token_forwards=50), []
    engine.model.register_forward_hook(lambda _, i, __: positions.append(len(i[0].positions)))
    engine.score_all(pairs_of(4))
    assert max(positions) <= 50
    assert "50" in refused("prompt", engine.score, ids_of(1, 50), [7])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_pool_takes_fewer_rows_at_a_time(family):
    pairs, rows = pairs_of(12), []
    wide = engine_of(family)
    page = wide.kv.pages.page_bytes
    small = engine_of(family, kv_bytes=6 * page)
    small.model.register_forward_hook(lambda _, i, __: rows.append(len(i[0].positions)))
    for own, other in zip(small.score_all(pairs), wide.score_all(pairs), strict=True):
        assert own.logprobs == pytest.approx(other.logprobs, rel=1e-6, abs=1e-6)
    assert max(rows) <= 6 * small.kv.pages.page_size
    assert small.kv.pages.in_use == 0
    with pytest.raises(dlm.Unavailable, match="budget"):
        small.score([5], ids_of(1, 200))


# asyncio


def test_tasks_score_while_others_decode(engine):
    pairs, decoding = pairs_of(6), {"max_new_tokens": 32, "stop": "none", "blocks": "fixed(8)"}
    expected = engine.score_all(pairs)
    alone = engine.generate(ids_of(1, 5), **decoding).ids

    async def main():
        async with AsyncEngine(engine) as served:
            tasks = [served.generate(ids_of(1, 5), **decoding) for _ in range(2)]
            tasks += [served.score_all(pairs), served.score(*pairs[2], method="chain")]
            return await asyncio.gather(*tasks)

    one, two, several, single = asyncio.run(main())
    assert one.ids == two.ids == alone
    for found, own in zip([*several, single], [*expected, expected[2]], strict=True):
        assert found.logprobs == pytest.approx(own.logprobs, abs=1e-6)


def test_rows_go_on_between_two_forwards(engine, monkeypatch):
    order = []
    step, compute = Engine.step, ScoringJob.step
    monkeypatch.setattr(Engine, "step", lambda own: (order.append("step"), step(own)))
    monkeypatch.setattr(ScoringJob, "step", lambda job: (order.append("score"), compute(job))[1])
    monkeypatch.setattr("dlm.engine.scoring.job.MOST_POSITIONS", 40)

    async def main():
        async with AsyncEngine(engine) as served:
            request = served.submit(ids_of(1, 5), max_new_tokens=48, stop="none", blocks="fixed(8)")
            await request.queued()
            await served.score_all(pairs_of(3))
            await request

    asyncio.run(main())
    between = order[order.index("score") : len(order) - order[::-1].index("score")]
    assert between.count("score") > 10
    assert between.count("step") >= between.count("score") // 2


def test_a_cancelled_task_frees_its_pages():
    engine = engine_of("block_causal")
    job = engine.prepare_scores([([5], ids_of(3, 200))], ScoringOptions())

    async def main():
        async with AsyncEngine(engine) as served:
            task = asyncio.ensure_future(served.run_scores(job))
            while not engine.kv.pages.in_use:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert engine.kv.pages.in_use == 0
            assert not job.step()

    asyncio.run(main())


def test_errors_are_raised_where_they_are_awaited(engine):
    async def main():
        served = AsyncEngine(engine)
        with pytest.raises(dlm.InvalidRequest, match="option"):
            await served.score([5], [7], rates=1)
        with pytest.raises(dlm.InvalidRequest, match="mask"):
            await served.score([5], [MASK])
        await served.close()
        with pytest.raises(RuntimeError, match="closed"):
            await served.score([5], [7])

    asyncio.run(main())


@pytest.mark.parametrize("options", WAYS)
def test_the_gpu_agrees(engine, options):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    twin = Engine(random_decoder(engine.model.spec).to("cuda"), engine.info)
    expected, found = (one.score_all(pairs_of(6), **options) for one in (engine, twin))
    for own, other in zip(expected, found, strict=True):
        assert other.logprobs == pytest.approx(own.logprobs, abs=1e-3)
