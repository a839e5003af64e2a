"""The tensors of keys and values: written, read, copied and grown, or fixed in their place."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from dlm import Engine
from dlm.errors import InvalidRequest, Unavailable
from dlm.model import kv_store
from dlm.model.kv_store import KVPool, KVStore
from tests.engine.harness import CPU, info_of
from tests.helpers import random_decoder, tiny_spec

SPEC = tiny_spec()
PAGE = 4
PAGE_BYTES = PAGE * SPEC.kv_bytes_per_token(4)


def store_of(pages=1, spec=SPEC, **options):
    return KVStore(spec, pages, device=CPU, dtype=torch.float32, page_size=PAGE, **options)


def pool_of(spec=SPEC, **options):
    return KVPool(spec, device=CPU, dtype=torch.float32, page_size=PAGE, **options)


def filled(pages, **options):
    """A store, and all that it holds."""
    store = store_of(pages, **options)
    store.storage.copy_(torch.randn(store.storage.shape))
    return store, store.storage.clone()


def test_keys_are_found_again_by_page_and_position():
    store, before = filled(5)
    slots = store.slots(np.array([3, 1]), np.array([5, 2, 0]))
    assert slots.tolist() == [1 * PAGE + 1, 3 * PAGE + 2, 3 * PAGE]
    keys, values = torch.randn(2, 3, SPEC.kv_heads, SPEC.head_dim)
    store.write(1, torch.from_numpy(slots), keys, values)
    found = store.read(1, torch.from_numpy(slots)[None])
    assert torch.equal(found[0][0], keys)
    assert torch.equal(found[1][0], values)
    assert torch.equal(store.storage[0], before[0]), "the other layer"
    others = [slot for slot in range(5 * PAGE) if slot not in slots]
    assert torch.equal(store.storage[1, others], before[1, others])


def test_pages_are_copied_in_all_layers_at_once():
    store, before = filled(6)
    store.copy([(1, 4), (1, 5), (3, 2)])
    paged, old = (x.unflatten(1, (6, PAGE)) for x in (store.storage, before))
    assert torch.equal(paged, old[:, [0, 1, 3, 3, 1, 1]])
    store.copy([])
    assert torch.equal(paged, old[:, [0, 1, 3, 3, 1, 1]])


def test_a_store_that_grows_keeps_what_it_holds():
    store, before = filled(2)
    store.grow(5)
    assert store.storage.nbytes == 5 * PAGE_BYTES
    assert torch.equal(store.storage[:, : 2 * PAGE], before)
    assert store.storage[:, 2 * PAGE :].count_nonzero() == 0


def test_a_fixed_store_does_not_grow():
    store, before = filled(2, fixed=True)
    with pytest.raises(Unavailable, match="fixed at 2 pages, not 3"):
        store.grow(3)
    assert torch.equal(store.storage, before)


def test_a_shard_holds_its_own_heads():
    shard = store_of(3, dataclasses.replace(SPEC, kv_heads=1))
    assert shard.storage.shape == (SPEC.layers, 3 * PAGE, 2, 1, SPEC.head_dim)
    assert 2 * shard.page_bytes == store_of().page_bytes


def test_a_fixed_pool_is_allocated_whole_and_ends_at_its_budget():
    pool = pool_of(max_bytes=6 * PAGE_BYTES + 1, fixed=True)
    address, size = pool.store.storage.data_ptr(), pool.store.storage.nbytes
    assert size == 6 * PAGE_BYTES
    pool.pages.reserve(5)
    with pytest.raises(Unavailable, match="5 of 5 are taken"):
        pool.pages.reserve(1)
    assert (pool.store.storage.data_ptr(), pool.store.storage.nbytes) == (address, size)
    growing = pool_of(max_bytes=6 * PAGE_BYTES + 1)
    assert growing.store.storage.nbytes == PAGE_BYTES
    growing.pages.reserve(5)
    assert growing.store.storage.nbytes == size
    with pytest.raises(InvalidRequest, match="`kv_bytes`: must be given for a fixed pool on cpu"):
        pool_of(fixed=True)
    assert not pool_of(max_bytes=3, fixed=True).pages.fits(1)


def test_a_fixed_pool_stays_where_it_is_while_rows_come_and_go(monkeypatch):
    """As many rows as fit, others wait; answers are those of a pool that grows."""
    plain = Engine(random_decoder(SPEC), info_of(SPEC))
    budget = 10 * plain.kv.pages.page_bytes
    monkeypatch.setattr("dlm.engine.engine.KVPool", partial(KVPool, fixed=True))
    engine = Engine(random_decoder(SPEC), info_of(SPEC), kv_bytes=budget)
    assert engine.kv.store.storage.nbytes == budget
    prompts = [tuple(range(3, 3 + n)) for n in (5, 40, 21, 60, 9)]
    address, seen = engine.kv.store.storage.data_ptr(), set()
    options = {"max_new_tokens": 24, "stop": "none", "cache": "dual"}
    requests = [engine.submit(prompt, **options) for prompt in prompts]
    while not all(request.done for request in requests):
        engine.step()
        seen.add(engine.kv.store.storage.data_ptr())
        engine.scheduler.check_integrity()
    assert seen == {address}
    for request, theirs in zip(requests, plain.generate(prompts, **options), strict=True):
        assert request.result().canvas == theirs.canvas


def test_without_a_budget_a_cuda_store_takes_a_share_of_the_free_memory(monkeypatch):
    free = {"bytes": 1000 * PAGE_BYTES}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free["bytes"], 1 << 40))
    stores = []

    def store(spec, pages, page_size, *, device, dtype, fixed):
        stores.append((pages, fixed))
        return store_of()

    monkeypatch.setattr(kv_store, "KVStore", store)
    cuda = {"device": torch.device("cuda"), "dtype": torch.float32, "page_size": PAGE}
    pool = KVPool(SPEC, **cuda)
    assert len(pool.pages.reserve(499)) == 499
    with pytest.raises(Unavailable, match="499 of 499 are taken"):
        pool.pages.reserve(1)
    KVPool(SPEC, **cuda, max_bytes=7 * PAGE_BYTES)
    KVPool(SPEC, **cuda, fixed=False)
    free["bytes"] = 1 << 50
    KVPool(SPEC, **cuda)
    assert stores == [(500, True), (7, True), (1, False), (kv_store.MOST_POSITIONS // PAGE, True)]
