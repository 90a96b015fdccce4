"""The closed formulas equal PyTorch's counter: every preset, every mode, sizes that no mode divides too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from flexivid import Condition, FlexiDiT, FlexiDiTConfig, macs
from flexivid.budget.cost import human
from flexivid.model.block import Packed
from flexivid.model.config import PRESETS

MODES = ("1x2x2", "2x2x2", "1x4x4", "2x4x4")
SIZES = ((8, 16, 16), (5, 15, 22))


def counted(model: FlexiDiT, size: tuple[int, int, int], mode: str | Packed, batch: int) -> int:
    """Half of what FlopCounterMode sees in one call on the meta device."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        x, time = torch.empty(batch, model.config.in_channels, *size), torch.empty(batch)
        model(x, time, Condition(torch.zeros(batch, dtype=torch.long)), mode)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize("preset", PRESETS)
def test_equals_pytorchs_counter(preset: str, attention: str) -> None:
    config = FlexiDiTConfig.preset(preset, in_channels=16, modes=MODES, num_classes=7, attention=attention)
    with torch.device("meta"):
        model = FlexiDiT(config)
    for size in SIZES:
        for mode in MODES:
            assert macs(config, size, mode) == counted(model, size, mode, batch=1)
    assert 3 * macs(config, SIZES[1], MODES[3]) == counted(model, SIZES[1], MODES[3], batch=3)


def test_odd_depth_and_other_widths() -> None:
    config = FlexiDiTConfig(60, 3, 5, 2, ("2x3x1", "1x1x1"), mlp_ratio=2.5, out_channels=4, attention="factorised")
    with torch.device("meta"):
        model = FlexiDiT(config)
    assert all(macs(config, (3, 5, 7), mode) == counted(model, (3, 5, 7), str(mode), 1) for mode in config.modes)


@pytest.mark.parametrize("channels", [(3, None), (16, 5)])
@pytest.mark.parametrize("size", [*SIZES, (1, 1, 1)])
def test_a_convolution_over_the_output_is_counted(channels: tuple[int, int | None], size: tuple[int, int, int]) -> None:
    """Over the size without padding, whatever the mode is, packed or not."""
    inputs, outputs = channels
    config = FlexiDiTConfig(32, 1, 2, inputs, MODES, out_channels=outputs, output_conv=True)
    with torch.device("meta"):
        model = FlexiDiT(config)
    plain = replace(config, output_conv=False)
    for mode in MODES:
        assert macs(config, size, mode) == counted(model, size, mode, batch=1)
        assert macs(config, size, mode) - macs(plain, size, mode) == macs(config, size) - macs(plain, size) > 0
    packed = counted(model, size, Packed(config.modes[1:3]), batch=2)
    assert packed == sum(macs(config, size, mode) for mode in MODES[1:3])


def test_published_numbers_of_dit_xl_2() -> None:
    config = FlexiDiTConfig.preset("XL", in_channels=4, modes=["1x2x2"], num_classes=1000)
    assert round(macs(config, (1, 32, 32)) / 1e9, 1) == 118.6
    assert round(macs(config, (1, 64, 64)) / 1e9, 1) == 524.5


def test_none_is_native_and_an_unknown_mode_is_refused() -> None:
    config = FlexiDiTConfig(modes=MODES)
    assert macs(config, (4, 8, 8)) == macs(config, (4, 8, 8), "1x2x2")
    with pytest.raises(ValueError, match="got mode 3x3x3; expected"):
        macs(config, (4, 8, 8), "3x3x3")


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 MACs"), (1_240_000, "1.24 MMACs"), (57e9, "57.0 GMACs"), (3.2e15, "3.20 PMACs")]
)
def test_human(count: float, text: str) -> None:
    assert human(count) == text
