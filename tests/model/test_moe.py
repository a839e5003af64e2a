import pytest
import torch
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from dlm.model.loading import load_model
from dlm.model.moe import MoE
from dlm.model.spec import MoESpec
from tests.helpers import PARITY, parity

SIGMOID = MoESpec(
    experts=16,
    per_token=4,
    intermediate_size=8,
    score="sigmoid",
    scale=2.5,
    groups=4,
    groups_kept=2,
    shared_experts=1,
    selection_bias=True,
)


def random_moe(spec: MoESpec, hidden_size: int = 24, seed: int = 0) -> MoE:
    torch.manual_seed(seed)
    moe = MoE(hidden_size, spec).requires_grad_(False)
    if moe.selection_bias is not None:
        moe.selection_bias.normal_(std=0.1)
    return moe


def test_sigmoid_router_and_experts_match_the_recorded_block():
    moe = load_model(PARITY / "models/llada2").layers[1].mlp
    _, recorded = parity("logits/llada2")
    weights, experts = moe.route(recorded["moe_in"])
    ours, theirs = experts.sort(dim=-1), recorded["moe_topk"].sort(dim=-1)
    assert torch.equal(ours.values, theirs.values)
    assert torch.allclose(
        weights.gather(1, ours.indices), recorded["moe_w"].gather(1, theirs.indices), atol=1e-6
    )
    assert torch.allclose(moe(recorded["moe_in"]), recorded["moe_out"], atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_softmax_router_and_experts_match_transformers(normalize):
    config = Qwen3MoeConfig(
        hidden_size=24,
        moe_intermediate_size=8,
        num_experts=16,
        num_experts_per_tok=4,
        norm_topk_prob=normalize,
    )
    moe = random_moe(MoESpec(16, 4, 8, normalize=normalize))
    block = Qwen3MoeSparseMoeBlock(config).requires_grad_(False)
    block.gate.weight.copy_(moe.router)
    block.experts.gate_up_proj.copy_(moe.gate_up)
    block.experts.down_proj.copy_(moe.down)
    x = torch.randn(17, 24)
    expected = block(x[None])
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert torch.allclose(moe(x), expected.view(17, 24), atol=1e-5)


@pytest.mark.parametrize("spec", [SIGMOID, MoESpec(8, 2, 8)], ids=["sigmoid", "softmax"])
def test_a_token_does_not_depend_on_its_batch_mates(spec):
    moe, x = random_moe(spec), torch.randn(33, 24, generator=torch.Generator().manual_seed(1))
    together = moe(x)
    alone = torch.cat([moe(row[None]) for row in x])
    assert torch.allclose(together, alone, atol=1e-6)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(moe(x[order]), together[order], atol=1e-6)


def test_grouped_products_equal_the_loop_over_experts():
    moe, x = random_moe(SIGMOID), torch.randn(9, 24)
    ends = torch.tensor([0, 2, 2, 5] + [9] * 12, dtype=torch.int32)
    assert torch.allclose(moe._run_grouped(x, ends), moe._run_each(x, ends), atol=1e-6)


def test_selection_stays_within_the_kept_groups_and_bias_does_not_enter_the_weights():
    moe = random_moe(SIGMOID)
    moe.selection_bias.zero_()
    moe.selection_bias[4:6] = 10.0  # group 1 must be chosen, and these two in it
    weights, experts = moe.route(torch.randn(20, 24))
    assert ((experts == 4).any(-1) & (experts == 5).any(-1)).all()
    assert all(len(set((row // 4).tolist())) <= 2 for row in experts)
    assert torch.allclose(weights.sum(-1), torch.full((20,), 2.5))


def test_scores_are_float32_whatever_the_model_is():
    moe = random_moe(SIGMOID)
    x = torch.randn(5, 24).bfloat16()
    exact = moe.route(x)
    half = moe.bfloat16()
    half.router.data, half.selection_bias.data = moe.router.float(), moe.selection_bias.float()
    weights, experts = half.route(x)
    assert weights.dtype == exact[0].dtype == torch.float32
    assert half(x).dtype == torch.bfloat16
    assert experts.shape == (5, 4)


def test_an_empty_batch_passes_through():
    assert random_moe(SIGMOID)(torch.empty(0, 24)).shape == (0, 24)
