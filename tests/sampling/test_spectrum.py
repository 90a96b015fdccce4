"""What a recipe keeps of the data, and times of other processes."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch

from flexivid.budget.spectral import Spectrum
from flexivid.diffusion.process import Process
from flexivid.diffusion.times import noise_shares
from flexivid.model.checkpoint import load, save
from flexivid.sampling.plan import plan_for
from flexivid.sampling.settings import Sampling

SPECTRUM = Spectrum(((1.7, 0.3), (2.5, 1.0, 0.4, 0.1), (2.0, 1.5, 0.4, 0.1)), deviation=0.6, clips=256)


def test_a_saved_model_keeps_its_spectrum(tmp_path, model):
    model.recipe = replace(model.recipe, spectrum=SPECTRUM)
    folder = save(model, tmp_path)
    assert load(folder).recipe.spectrum == SPECTRUM
    assert json.loads((folder / "config.json").read_text())["recipe"]["spectrum"]["clips"] == 256


def test_a_planner_that_needs_one_says_so(model):
    text = (
        "got planner spectral for a model whose recipe has no spectrum; expected one that training measured; train"
        " anew, or choose --planner weak_first"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        plan_for(model, Sampling(size=(2, 8, 8), planner="spectral").filled(model), 0.5)


@pytest.mark.parametrize("path", ["flow", "cosine", "linear"])
def test_shares_keep_the_ratio_of_data_to_noise(path):
    process, times = Process(path), [1.0, 0.9, 0.5, 0.1, 0.01]
    shares = noise_shares(process, times)
    assert shares == sorted(shares, reverse=True)
    assert all(0 < share <= 1 for share in shares)
    for time, share in zip(times, shares, strict=True):
        alpha, sigma = (float(amplitude) for amplitude in process.alpha_sigma(torch.tensor(time)))
        assert (1 - share) * sigma == pytest.approx(alpha * share, abs=1e-6)
