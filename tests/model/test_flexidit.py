"""Every mode and size goes through and trains every parameter; a new network gives zero; one graph a mode."""

import copy
import warnings

import pytest
import torch

from flexivid.model.attention import _xformers_operator
from flexivid.model.block import Tokens
from flexivid.model.conditioning import Condition, check_labels, time_features
from flexivid.model.positions import ROTARY_BASE, TABLE_BASE
from flexivid.patching.position import axis_angles, patch_centres
from flexivid.patching.shapes import PatchMode, Size3, grid_of
from tests.reference import network as reference

MODES = ("1x2x2", "2x2x2", "1x4x4", "2x4x4")
SIZES = [(4, 8, 8), (5, 9, 7), (21, 4, 2), (1, 8, 8), (1, 1, 1)]
ATTENTION = pytest.mark.parametrize("attention", ["joint", "factorised"])
LABELS = Condition(torch.tensor([0, 2]))


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@ATTENTION
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_shape_in_is_shape_out(make_model, make_batch, attention, mode, size):
    model, (x, time) = make_model(attention=attention, out_channels=5), make_batch(size)
    out = model(x, time, LABELS, mode)
    assert out.shape == (2, 5, *size)
    assert out.isfinite().all()
    assert out.abs().max() > 0


@ATTENTION
@pytest.mark.parametrize("mode", MODES)
def test_equals_the_plain_formula(make_model, make_batch, attention, mode):
    """Embedding and de-embedding have their own tests; here, all that is between."""
    model, (x, time), mode = make_model(attention=attention).double(), make_batch((5, 9, 7)), PatchMode(mode)
    x, time, index, size = x.double(), time.double(), MODES.index(str(mode)), Size3(5, 9, 7)
    grid = grid_of(size, mode)
    centres = patch_centres(grid, mode, model.config.native)
    table = axis_angles(centres, 24, base=TABLE_BASE)
    h = model.embed(x, mode) + torch.cat((table.cos(), table.sin()), -1) + model.mode_embedding[index]
    told = model.conditioning.time_in(time_features(time).double())
    told = model.conditioning.time_out(told * told.sigmoid()) + model.conditioning.label.weight[[0, 2]]
    told = told + model.conditioning.mode[index]
    steering, angles = told * told.sigmoid(), axis_angles(centres, 12, base=ROTARY_BASE)
    for layer in model.blocks:
        h = reference.block(layer, h, steering, angles, grid)
    shift, scale = model.out_modulation(steering)[:, None].chunk(2, dim=-1)
    expected = model.out(reference.norm(h) * (1 + scale) + shift, mode, size)
    torch.testing.assert_close(model(x, time, LABELS, mode), expected, rtol=1e-4, atol=1e-4)


@ATTENTION
def test_new_network_gives_zero_and_its_blocks_are_identities(make_model, make_batch, attention):
    model, (x, time) = make_model(attention=attention, awake=False), make_batch()
    tokens = torch.randn(2, 64, 24)
    angle = torch.zeros(64, 1, 12)
    for layer in model.blocks:
        assert torch.equal(layer(tokens, torch.randn(2, 24), Tokens(angle, angle, 4)), tokens)
    for mode in MODES:
        assert torch.equal(model(x, time, LABELS, mode), torch.zeros_like(x))


@ATTENTION
@pytest.mark.parametrize("mode", MODES)
def test_gradients_reach_every_parameter_in_every_mode(make_model, make_batch, attention, mode):
    """No parameter belongs to one mode alone, so DDP never waits for one; of rows of modes, the mode's own moves."""
    model, (x, time) = make_model(attention=attention), make_batch((5, 9, 7))
    found = gradients(model, model(x, time, LABELS, mode).square().mean())
    assert [name for name, gradient in found.items() if gradient is None or not gradient.abs().sum() > 0] == []
    for name in ("mode_embedding", "conditioning.mode"):
        assert found[name].abs().sum(1).gt(0).tolist() == [other == mode for other in MODES]
    assert found["conditioning.label.weight"].abs().sum(1).gt(0).tolist() == [True, False, True, False]


@ATTENTION
def test_checkpointing_changes_no_gradient(make_model, make_batch, attention):
    model, (x, time) = make_model(attention=attention), make_batch()
    saving = make_model(attention=attention, gradient_checkpointing=True)
    for mode in MODES:
        one, other = (gradients(m, m(x, time, LABELS, mode).square().mean()) for m in (model, saving))
        assert all(torch.equal(gradient, other[name]) for name, gradient in one.items())


def test_names_of_the_native_mode(make_model, make_batch):
    model, (x, time) = make_model(), make_batch()
    outputs = [model(x, time, LABELS, mode) for mode in (None, "native", "1x2x2", PatchMode("1x2x2"), (1, 2, 2))]
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert torch.equal(model(x, time, LABELS, "2x4x4"), model(x, time, LABELS, PatchMode("2x4x4")))
    assert not torch.allclose(model(x, time, LABELS, "2x4x4"), outputs[0], atol=1e-2)


def test_no_condition_is_the_null_class(make_model, make_batch):
    model, (x, time) = make_model(), make_batch()
    null = model(x, time, Condition(torch.tensor([3, 3])))
    assert torch.equal(model(x, time), null)
    assert torch.equal(model(x, time, Condition()), null)
    assert not torch.allclose(model(x, time, LABELS), null, atol=1e-2)
    assert make_model(num_classes=0)(x, time).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "times", "mode", "named"),
    [
        ((2, 3, 8, 8), 2, None, r"got x of shape \(2, 3, 8, 8\); expected \(b, 3, t, h, w\)"),
        ((2, 4, 1, 8, 8), 2, None, r"got x of shape \(2, 4, 1, 8, 8\); expected \(b, 3, t, h, w\)"),
        ((2, 3, 1, 8, 8), 1, None, r"got time of shape \(1,\); expected \(2,\)"),
        ((2, 3, 1, 8, 8), 2, "4x4x4", "got mode 4x4x4; expected one the model has"),
        ((2, 3, 1, 8, 8), 2, "weak", "got patch mode 'weak'; expected FRAMESxROWSxCOLUMNS"),
        ((2, 3, 0, 8, 8), 2, None, r"got latent size \(0, 8, 8\); expected \(t, h, w\), each >= 1"),
    ],
)
def test_what_does_not_fit_is_named(make_model, shape, times, mode, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        make_model()(torch.zeros(shape), torch.zeros(times), mode=mode)


def test_labels_out_of_range_are_named():
    check_labels(torch.tensor([0, 3]), 3)
    check_labels(torch.tensor([], dtype=torch.long), 3)
    for wrong in ([4], [-1, 0]):
        with pytest.raises(ValueError, match=r"got labels from .*; expected 0 to 2, or 3 for the null class"):
            check_labels(torch.tensor(wrong), 3)


@ATTENTION
@pytest.mark.parametrize("mode", MODES)
def test_a_sample_does_not_depend_on_its_neighbours(make_model, make_batch, attention, mode):
    model, (x, time) = make_model(attention=attention), make_batch((5, 9, 7))
    alone = model(x[1:], time[1:], Condition(LABELS.label[1:]), mode)
    torch.testing.assert_close(model(x, time, LABELS, mode)[1:], alone, rtol=1e-4, atol=1e-5)


@ATTENTION
def test_same_seed_same_network_same_output(make_model, make_batch, attention):
    (x, time), models = make_batch(), [make_model(attention=attention, awake=False) for _ in range(2)]
    first, second = (dict(model.named_parameters()) for model in models)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    model = make_model(attention=attention)
    outputs = [model(x, time, LABELS, "2x4x4") for model in (model, model, copy.deepcopy(model))]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_saved_weights_fit_a_network_with_the_same_largest_patch(make_model):
    """Duals are computed, not saved; per mode, two rows are."""
    model, other = make_model(), make_model(modes=("2x4x4", "1x2x2", "1x4x4", "2x2x2"))
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert model.num_parameters == sum(value.numel() for value in model.state_dict().values())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.embed.kernel(PatchMode("1x4x4")), model.embed.kernel(PatchMode("1x4x4")))


@ATTENTION
@pytest.mark.parametrize("mode", MODES)
def test_bf16_autocast_stays_close(make_model, make_batch, attention, mode):
    model, (x, time) = make_model(attention=attention), make_batch((5, 9, 7))
    full = model(x, time, LABELS, mode)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, time, LABELS, mode)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).square().mean().sqrt() < 0.05 * full.square().mean().sqrt()
    found = gradients(model, half.float().square().mean())
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_type(make_model, make_batch, dtype):
    model, (x, time) = make_model(), make_batch()
    full = model(x, time, LABELS, "2x4x4")
    out = model.to(dtype)(x.to(dtype), time, LABELS, "2x4x4")
    assert out.dtype == dtype
    assert (out.float() - full).square().mean().sqrt() < 0.1 * full.square().mean().sqrt()


def test_xformers_backend_warns_once_for_all_blocks_and_calls(make_model, make_batch):
    model, (x, time) = make_model(attention_backend="xformers"), make_batch()
    _xformers_operator.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outputs = [model(x, time, LABELS, mode) for mode in MODES]
    assert sum("attention_backend" in str(warning.message) for warning in caught) == 1
    plain = make_model()
    assert all(torch.equal(output, plain(x, time, LABELS, mode)) for output, mode in zip(outputs, MODES, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("form", [str, PatchMode])
@pytest.mark.parametrize("condition", [None, LABELS])
@ATTENTION
def test_one_graph_a_mode(make_model, make_batch, form, condition, attention):
    torch._dynamo.reset()
    graphs = []
    model, (x, time) = make_model(attention=attention), make_batch((5, 9, 7))
    compiled = torch.compile(model, backend=lambda graph, _: graphs.append(graph) or graph, dynamic=False)
    for _ in range(3):
        for mode in map(form, MODES):
            torch.testing.assert_close(compiled(x, time, condition, mode), model(x, time, condition, mode))
    assert len(graphs) == len(MODES)
