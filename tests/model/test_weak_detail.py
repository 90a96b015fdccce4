"""What weak modes pass on: the detail that their patches cannot hold, as far as the process says what it is."""

import pytest
import torch

from flexivid.diffusion.process import PATHS, TARGETS, Process, _alpha_bar
from flexivid.model.config import CHOICES, FlexiDiTConfig
from flexivid.patching.embed import detail
from flexivid.patching.shapes import PatchMode

MODES = ("1x2x2", "2x2x2", "1x4x4", "2x4x4")


@pytest.fixture
def model(make_model):
    return make_model(modes=MODES, weak_detail="flow velocity")


def test_the_native_mode_passes_nothing_on(model, make_model):
    plain = make_model(modes=MODES)
    plain.load_state_dict(model.state_dict())
    x, time = torch.randn(1, 3, 4, 8, 8), torch.tensor([0.5])
    with torch.no_grad():
        assert torch.equal(model(x, time), plain(x, time))
        assert not torch.allclose(model(x, time, mode="1x4x4"), plain(x, time, mode="1x4x4"))


@pytest.mark.parametrize("size", [(5, 7, 9), (4, 8, 8), (1, 2, 2)])
def test_detail_is_what_the_means_leave(size):
    x, native = torch.randn(2, 3, *size), PatchMode("1x2x2")
    assert torch.equal(detail(x, native, native), torch.zeros_like(x))
    coarse = torch.randn(2, 3, 2, 2, 2).repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    assert detail(coarse, PatchMode("2x4x4"), native).abs().max() < 1e-6  # cells of 2x2x2 that are alike
    assert detail(x, PatchMode("2x4x4"), native).shape == x.shape


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_gain_is_the_best_linear_estimate(path, target):
    process, time = Process(path, target), torch.tensor([0.3, 0.6, 0.9])
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(3, 200000, generator=generator) * scale for scale in (0.2, 1.0))  # variance 0.04
    x, y = process.add_noise(x0, noise, time), process.target_of(x0, noise, time)
    measured = (x * y).sum(1) / x.square().sum(1)
    torch.testing.assert_close(process.detail_gain(time), measured, rtol=0.02, atol=0.005)


def test_a_first_call_on_the_meta_device_leaves_a_table_with_values():
    _alpha_bar.cache_clear()
    with torch.device("meta"):
        Process("linear", "noise").alpha_sigma(torch.empty(1))
    assert Process("linear", "noise").alpha_sigma(torch.tensor([0.0]))[0].item() == 1


def test_the_configuration_names_every_process():
    assert CHOICES["weak_detail"] == ("none", *(f"{path} {target}" for path in PATHS for target in TARGETS))


def test_an_unknown_process_is_refused():
    with pytest.raises(ValueError, match=r"got weak_detail='linear'; expected none or flow x0 or"):
        FlexiDiTConfig(weak_detail="linear")
