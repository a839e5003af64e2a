"""Structs of tensors: rows are selected, moved and stacked as their fields declare."""

import torch

from dlm.core import BlockTable, HostRows, Kind, Rows, ScratchSpec
from dlm.decode.sampling import Sampler

SPECS = (
    ScratchSpec("seen", "token", torch.float32, fill=torch.nan, width=3),
    ScratchSpec("conf", "row", torch.int64, fill=7),
)


def rows_of(count: int, length: int, pages: int) -> Rows:
    """Rows of open canvases of `length` positions and the spare column."""
    one = torch.arange(count) + 10 * length
    ids = one[:, None].expand(count, length + 1).contiguous()
    zero = torch.zeros_like(ids)
    kind = torch.full(ids.shape, int(Kind.MASK), dtype=torch.int8)
    table = torch.ones(count, 2, pages, dtype=torch.long)
    host = HostRows(
        one, one, one, zero == 0, one, one, zero + 5, BlockTable.empty(count), table, whole_row=True
    )
    canvas = (ids, ids.clone(), kind, ids.float(), zero + 3, zero + 4)
    rows = Rows(*canvas, *[one] * 8, BlockTable.empty(count), host, {})
    return rows.prepared(SPECS, whole_row=True)


def test_rows_of_other_widths_are_stacked_with_declared_fills() -> None:
    narrow, wide = rows_of(2, 4, 1), rows_of(1, 6, 3)
    both = Rows.cat([narrow, wide])
    new = (slice(0, 2), slice(5, None))
    fills = {"ids": 0, "kv_ids": -1, "kind": Kind.PAD, "born": -1, "edits": 0}
    assert {name: getattr(both, name)[new].unique().tolist() for name in fills} == {
        name: [value] for name, value in fills.items()
    }
    assert both.conf[new].isnan().all()
    assert both.ids[:2, :5].equal(narrow.ids)
    assert both.ids[2:].equal(wide.ids)
    assert both.scratch["seen"].shape == (3, 7, 3)
    assert both.scratch["seen"][new].isnan().all()
    assert both.scratch["conf"].tolist() == [7, 7, 7]
    assert both.host.pages.tolist() == [[[1, 0, 0]] * 2] * 2 + [[[1, 1, 1]] * 2]
    assert not both.host.skipped[new].any()
    assert not both.host.key_step[new].any()
    assert both.host.whole_row


def test_selected_rows_keep_their_order_and_share_no_memory() -> None:
    rows = rows_of(3, 4, 2)
    taken = rows.select(torch.tensor([2, 0, 2]))
    assert taken.seed.tolist() == [42, 40, 42]
    assert taken.host.prompt.tolist() == [42, 40, 42]
    assert taken.specs == SPECS
    taken.ids.fill_(0)
    taken.host.blocks.step.fill_(9)
    taken.scratch["conf"].fill_(0)
    assert rows.ids.all()
    assert not rows.host.blocks.step.any()
    assert not taken.blocks.step.any()
    assert rows.scratch["conf"].all()


def test_a_mirror_is_a_copy_and_the_host_stays() -> None:
    rows = rows_of(1, 4, 1)
    mirror = rows.host.blocks.to("cpu")
    mirror.step.fill_(1)
    assert not rows.host.blocks.step.any()
    moved = rows.to(torch.device("meta"))
    assert moved.ids.device.type == moved.blocks.end.device.type == "meta"
    assert moved.scratch["seen"].device.type == "meta"
    assert moved.host is rows.host


def test_samplers_filter_if_one_of_them_does() -> None:
    def sampler(filters: bool) -> Sampler:
        return Sampler(torch.ones(1), torch.ones(1), torch.zeros(1), filters)

    assert Sampler.cat([sampler(False), sampler(True)]).filters
    assert not Sampler.cat([sampler(False), sampler(False)]).filters
