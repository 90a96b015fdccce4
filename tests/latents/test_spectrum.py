"""Measured spectra of signals whose spectrum is known, and of a real latent."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.fft import dct

from flexivid.latents.spectrum import SpectrumMeter
from flexivid.patching.shapes import PatchMode
from tests.latents.spectra import measure_spectrum
from tests.reference.spectral import activation_time, mode_activation

SHARED = Path(os.environ.get("FLEXIVID_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_white_noise_has_power_one_everywhere():
    spectrum = measure_spectrum(3 + 0.5 * noise(64, 3, 5, 16, 12))
    assert spectrum.size == (5, 16, 12)
    assert spectrum.deviation == pytest.approx(0.5, rel=0.01)
    for row in spectrum.power:
        assert row == pytest.approx([1.0] * len(row), rel=0.05)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_a_cosine_lands_in_its_bin(axis, k):
    n = 12
    wave = torch.cos(torch.pi * k / n * (torch.arange(n) + 0.5))  # k half periods: k / (2 n) cycles a cell
    clips = -2 + 0.3 * wave.movedim(0, -1).view([n if i == axis else 1 for i in range(3)]).expand(2, 1, n, n, n)
    spectrum = measure_spectrum(clips)
    expected = [float(n * (i == k)) for i in range(n)]
    assert spectrum.power[axis] == pytest.approx(expected, abs=1e-6)
    assert spectrum.deviation == pytest.approx(0.3 / 2**0.5)
    for other in {0, 1, 2} - {axis}:
        assert spectrum.power[other] == pytest.approx([float(n)] + [0.0] * (n - 1), abs=1e-6)


def test_the_mean_power_is_one_whatever_the_data():
    spectrum = measure_spectrum(noise(7, 2, 5, 6, 9).cumsum(2) ** 3 + 4)
    assert [np.mean(row) for row in spectrum.power] == pytest.approx([1, 1, 1])


def test_is_what_scipy_makes_of_it():
    x = noise(3, 2, 4, 6, 5).double().cumsum(3)
    centred = (x - x.mean()) / x.std(correction=0)
    for axis, row in enumerate(measure_spectrum(x).power, 2):
        power = dct(centred.numpy(), axis=axis, norm="ortho") ** 2
        assert row == pytest.approx(power.mean(axis=tuple({0, 1, 2, 3, 4} - {axis})))


def test_smooth_in_time_has_little_power_at_high_frequencies():
    still, walk = noise(32, 1, 1, 8, 8).expand(-1, -1, 16, -1, -1), noise(32, 1, 16, 8, 8).cumsum(2)
    high = {name: measure_spectrum(clips).power[0][8] for name, clips in (("still", still), ("walk", walk))}
    assert high["still"] < 1e-9
    assert high["walk"] < 0.1


def test_a_drift_does_not_look_like_detail():
    """The last frame of a drift differs from the first: a transform of periodic signals would see a jump there."""
    drift = torch.linspace(-1, 1, 16).view(1, 1, 16, 1, 1).expand(1, 1, 16, 4, 4)
    row = measure_spectrum(drift).power[0]
    periodic = np.abs(np.fft.rfft(drift[0, 0, :, 0, 0].numpy() / drift.std(correction=0).item(), norm="ortho")) ** 2
    assert row[8] < 0.01 * periodic[4]  # both at a quarter of a cycle a frame


def test_scale_and_offset_do_not_matter():
    x = noise(8, 3, 4, 8, 8).double().cumsum(3)
    one, other = measure_spectrum(x), measure_spectrum(100 - 7 * x)
    assert other.deviation == pytest.approx(7 * one.deviation)
    for row, scaled in zip(one.power, other.power, strict=True):
        assert scaled == pytest.approx(row)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_is_that_of_the_data(dtype):
    x = noise(4, 3, 4, 8, 8).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        measured = measure_spectrum(x)
    assert measured == measure_spectrum(x.double())


def test_batches_add_up_and_a_meter_goes_on_where_another_stopped():
    batches = [noise(count, 3, 4, 8, 6, seed=count) for count in (2, 5, 1, 4)]
    whole = SpectrumMeter()
    for batch in batches:
        whole.add(batch)
    part, resumed = SpectrumMeter(), SpectrumMeter()
    for batch in batches[:2]:
        part.add(batch)
    resumed.load_state_dict(part.state_dict())
    for batch in batches[2:]:
        resumed.add(batch)
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.spectrum() == whole.spectrum() == measure_spectrum(iter(batches))
    together = measure_spectrum(torch.cat(batches))
    assert together.clips == 12
    for row, expected in zip(together.power, whole.spectrum().power, strict=True):
        assert row == pytest.approx(expected)


def test_a_fresh_meter_takes_over_an_empty_one():
    meter = SpectrumMeter()
    meter.load_state_dict(SpectrumMeter().state_dict())
    meter.add(noise(2, 1, 2, 2, 2))
    assert meter.clips == 2


def test_stops_at_its_limit():
    meter = SpectrumMeter(limit=5)
    for seed in range(4):
        meter.add(noise(3, 1, 2, 4, 4, seed=seed))
    assert meter.is_full
    assert meter.clips == 6
    assert meter.spectrum() == measure_spectrum([noise(3, 1, 2, 4, 4, seed=seed) for seed in range(2)])


@pytest.mark.parametrize("value", [0.7, -1.0, float("nan")])
def test_nothing_that_varies_has_no_spectrum(value):
    meter = SpectrumMeter()
    assert meter.spectrum() is None
    meter.add(torch.full((2, 3, 4, 8, 8), value))
    assert meter.spectrum() is None


def test_leaves_the_random_state_and_gradients_alone():
    x = noise(2, 1, 2, 4, 4).requires_grad_()
    before = torch.get_rng_state()
    assert not any(isinstance(row, torch.Tensor) for row in measure_spectrum(x).power)
    assert torch.equal(torch.get_rng_state(), before)


def test_clips_of_one_size_only():
    meter = SpectrumMeter()
    meter.add(noise(2, 3, 4, 8, 8))
    with pytest.raises(ValueError, match=r"got latents \(2, 3, 4, 8, 6\); expected .* = \(4, 8, 8\); measure clips of"):
        meter.add(noise(2, 3, 4, 8, 6))
    with pytest.raises(ValueError, match=r"got latents \(3, 4, 8, 8\); expected .* any size"):
        SpectrumMeter().add(noise(3, 4, 8, 8))


@pytest.fixture(scope="module")
def wan_latent():
    """A real latent of Wan 2.1, (1, 16, 16, 40, 64), not in the repository."""
    file = SHARED / "weights" / "wan21_latent.safetensors"
    if not file.is_file():
        pytest.skip(f"{file} is not there; FLEXIVID_SHARED names its folder")
    latent = load_file(file)["latent"].double()
    return (latent - latent.mean()) / latent.std(correction=0)


def test_published_activation_times_of_space(wan_latent):
    """Published at delta = 0.01: patches x2 in space down to time .82, x4 to .94.

    The power behind these is the mean over a ring of the two-dimensional spectrum of rows and columns (DCT, one bin
    wide, all frames and channels, deviation 1), at the radius of the mode's Nyquist frequency.
    """
    power = dct(dct(wan_latent.numpy(), axis=3, norm="ortho"), axis=4, norm="ortho") ** 2
    radius = np.hypot(np.arange(40)[:, None] / 80, np.arange(64) / 128)
    rings = [power.mean((0, 1, 2))[abs(radius - 0.5 / growth) < 1 / 128].mean() for growth in (2, 4)]
    assert [activation_time(ring, 0.01) for ring in rings] == pytest.approx([0.82, 0.94], abs=0.005)


def test_activation_times_of_a_real_latent_along_each_axis(wan_latent):
    """Power along one axis is a mean over all frequencies of the other one, so times are lower than those of rings.

    The published .36 of x2 in time lies between all frames and all but the first, which in a causal autoencoder is an
    image of its own; how it was measured is not known.
    """
    native, spectrum = PatchMode("1x2x2"), measure_spectrum(wan_latent)
    modes = [PatchMode(mode) for mode in ("2x2x2", "1x2x4", "1x4x2", "1x2x8", "1x8x2")]
    times = [mode_activation(spectrum, native, mode, 0.01) for mode in modes]
    assert all(a < b for a, b in pairwise(times))
    assert mode_activation(spectrum, native, PatchMode("1x4x4"), 0.01) == times[2] < 0.82
    assert mode_activation(spectrum, native, PatchMode("1x8x8"), 0.01) == times[4] < 0.94
    without_first = measure_spectrum(wan_latent[:, :, 1:])
    assert mode_activation(without_first, native, modes[0], 0.01) < 0.36 < times[0] < 0.5
