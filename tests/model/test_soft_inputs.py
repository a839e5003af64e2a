"""Dense forwards from embeddings: those of the ids give the same, and gradients are right."""

import torch

from tests.helpers import random_decoder, tiny_spec


def test_embeddings_of_the_ids_give_the_same_states():
    decoder = random_decoder(tiny_spec(), seed=2)
    ids = torch.tensor([[3, 4, 9, 60], [1, 0, 2, 5]])
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    inputs = decoder.embedding(ids)
    assert torch.equal(decoder.dense(ids, mask), decoder.dense(ids, mask, inputs=inputs))
    others = decoder.dense(ids, mask, inputs=inputs.flip(0))
    assert torch.equal(others, decoder.dense(ids.flip(0), mask))


def test_gradients_are_those_of_small_differences():
    decoder = random_decoder(tiny_spec(), seed=2).double()
    ids = torch.tensor([[3, 4, 9]])
    inputs = decoder.embedding(ids).detach().requires_grad_()
    direction = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1)).double()

    def value(x):
        return decoder.head(decoder.dense(ids, inputs=x)).float().log_softmax(2)[0, :, 7].sum()

    (gradient,) = torch.autograd.grad(value(inputs), inputs)
    step = 1e-3 * direction
    with torch.no_grad():
        difference = float(value(inputs + step) - value(inputs - step)) / 2e-3
    assert abs(difference - float((gradient * direction).sum())) < 2e-2 * abs(difference) + 1e-2
