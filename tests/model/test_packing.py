"""Samples of different modes in one pass come out as from a pass each; nobody attends outside their sample."""

import pytest
import torch

from flexivid.model import attention
from flexivid.model.attention import packed_operator, varlen_packed
from flexivid.model.block import Packed, Part, join, lengths_of, part_from, spread
from flexivid.model.conditioning import Condition
from flexivid.patching.shapes import PatchMode
from tests.reference.attention import attention as reference

MODES = ("1x2x2", "2x2x2", "2x4x4")
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.mark.parametrize("axes", ["joint", "factorised"])
@pytest.mark.parametrize("size", [(4, 8, 8), (3, 6, 5)])
def test_packed_pass_equals_one_pass_a_mode(make_model, make_batch, axes, size):
    model, (x, time) = make_model(modes=MODES, attention=axes), make_batch(size)
    label = torch.tensor([0, 2])
    packed = model(x.repeat(3, 1, 1, 1, 1), time.repeat(3), Condition(label.repeat(3)), Packed(model.config.modes))
    alone = torch.cat([model(x, time, Condition(label), mode) for mode in MODES])
    torch.testing.assert_close(packed, alone, **TOLERANCE)


def test_packed_pass_without_condition(make_model, make_batch):
    model, (x, time) = make_model(modes=MODES), make_batch()
    packed = model(torch.cat([x, x]), time.repeat(2), None, Packed(model.config.modes[:2]))
    torch.testing.assert_close(packed[2:], model(x, time, None, MODES[1]), **TOLERANCE)


def test_a_pass_has_equal_shares(make_model, make_batch):
    model, (x, time) = make_model(modes=MODES), make_batch()
    with pytest.raises(ValueError, match=r"got 2 samples for modes 1x2x2&2x2x2&2x4x4; expected equal shares"):
        model(x, time, None, Packed(model.config.modes))


def test_row_and_back():
    parts = (Part(2, 3, 1), Part(1, 4, 2))
    blocks = [torch.randn(2, 3, 5), torch.randn(1, 4, 5)]
    row = join(blocks)
    assert row.shape == (1, 10, 5)
    assert all(torch.equal(a, b) for a, b in zip(part_from(row, parts), blocks, strict=True))
    vectors = torch.arange(3.0)[:, None]
    assert spread(vectors, parts)[0, :, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_varlen_call_says_where_samples_end(monkeypatch):
    """The GPU kernel replaced by a full score matrix with the mask that its arguments mean."""
    lengths = lengths_of([Part(2, 3, 1), Part(1, 4, 2)])

    def masked(q, k, v, ends, other_ends, longest, other_longest):
        assert torch.equal(ends, other_ends)
        assert (longest, other_longest, ends.dtype) == (4, 4, torch.int32)
        owner = torch.bucketize(torch.arange(len(q)), ends, right=True)
        return reference(q[None], k[None], v[None], owner[:, None] == owner)[0].float()

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", masked)
    q, k, v = torch.randn(3, 1, 10, 2, 6)
    rows = [reference(*(y[:, i:j] for y in (q, k, v))) for i, j in ((0, 3), (3, 6), (6, 10))]
    torch.testing.assert_close(varlen_packed(q, k, v, lengths), torch.cat(rows, dim=1).float(), **TOLERANCE)


def test_network_uses_the_packed_operator_where_there_is_one(make_model, make_batch, monkeypatch):
    model, (x, time) = make_model(modes=MODES), make_batch()
    run = (torch.cat([x, x]), time.repeat(2), None, Packed([PatchMode("1x2x2"), PatchMode("2x4x4")]))
    grouped = model(*run)

    def masked(q, k, v, lengths):
        owner = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        return reference(q, k, v, owner[:, None] == owner).float()

    monkeypatch.setattr("flexivid.model.block.packed_operator", lambda v, backend: masked)
    torch.testing.assert_close(model(*run), grouped, **TOLERANCE)


def test_which_operator_packs(monkeypatch):
    half, single = (torch.empty(1, 4, 1, 8, device="meta", dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    assert packed_operator(torch.empty(1, 4, 1, 8), "sdpa") is None

    class OnGpu:
        device = torch.device("cuda")

        def __init__(self, dtype):
            self.dtype = dtype

    monkeypatch.setattr(attention, "_xformers_operator", lambda device: object())
    assert packed_operator(OnGpu(half.dtype), "sdpa") is varlen_packed
    assert packed_operator(OnGpu(single.dtype), "sdpa") is None
    assert packed_operator(OnGpu(single.dtype), "xformers") is attention.xformers_packed
