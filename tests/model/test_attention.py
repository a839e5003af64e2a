"""One attention call for runs of any shapes, against one call for each shape."""

import pytest
import torch

from dlm import Engine
from dlm.core import AttentionGroup, RaggedGroup
from dlm.model.attention import ragged_attention, scaled_attention, takes_ragged
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

RUNS = ((3, 7), (1, 1), (8, 8), (5, 40), (2, 33))  # queries and keys of each
HEADS = ((4, 4), (4, 2))
PROMPTS = ((5, 9, 33, 12), (7, 8), tuple(range(3, 40)), (5, 9, 33, 12, 6))
OPTIONS = {"max_new_tokens": 24, "unmask": "topk", "blocks": "fixed(8)", "stop": "none"}


def cuts(sizes, device):
    return torch.tensor([0, *sizes]).cumsum(0).int().to(device)


def compare(heads, kv_heads, device, dtype, dim=16):
    torch.manual_seed(0)
    queries, keys = zip(*RUNS, strict=True)
    q = torch.randn(sum(queries), heads, dim, device=device, dtype=dtype)
    both = torch.randn(sum(keys), 2, kv_heads, dim, device=device, dtype=dtype)
    k, v = both.unbind(1)  # as the pool gives them: not contiguous
    group = RaggedGroup(
        0, sum(queries), keys, cuts(queries, device), cuts(keys, device), max(queries), max(keys)
    )
    found = ragged_attention(q, k, v, group)
    for run in zip(q.split(queries), k.split(keys), v.split(keys), strict=True):
        exact = scaled_attention(*(x[None].transpose(1, 2).double() for x in run), mask=None)
        own, found = found.split([len(run[0]), len(found) - len(run[0])])
        yield own.double(), exact[0].transpose(0, 1).flatten(1)


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_runs_of_any_shapes_get_what_each_gets_alone(heads, kv_heads):
    for found, exact in compare(heads, kv_heads, "cpu", torch.float32):
        torch.testing.assert_close(found, exact, atol=1e-6, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_flash_attention_gives_the_same(heads, kv_heads, dtype):
    assert takes_ragged(torch.zeros(1, 16, device="cuda", dtype=dtype))
    loose = 2e-3 if dtype == torch.float16 else 2e-2
    for found, exact in compare(heads, kv_heads, "cuda", dtype):
        torch.testing.assert_close(found, exact, atol=loose, rtol=loose)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual", "dual(every=2)"])
@pytest.mark.parametrize("shift", [False, True])
def test_an_engine_with_ragged_calls_decodes_the_same(cache, shift):
    spec, answers, calls = tiny_spec(shift=shift), [], []
    for ragged in (False, True):
        engine = Engine(random_decoder(spec), info_of(spec))
        engine.manager.planner.ragged = ragged
        requests = [engine.submit(p, cache=cache, **OPTIONS) for p in PROMPTS]
        engine.step()
        calls.append(engine.manager.planner._packed[1].groups)
        answers.append([request.result().ids for request in requests])
    assert answers[0] == answers[1]
    assert {type(group) for group in calls[0]} == {AttentionGroup}
    assert {type(group) for group in calls[1]} == {RaggedGroup}
    assert len(calls[1]) == 1 < len(calls[0])


def test_a_cpu_takes_a_call_for_each_shape():
    assert not takes_ragged(torch.zeros(1, 16))
    assert not takes_ragged(torch.zeros(1, 16, dtype=torch.bfloat16))
