"""Every planner works for latents with text, within its budget: spectral, searched, searched by FVD, adaptive."""

import warnings
from dataclasses import replace

import pytest
import torch

from flexivid.calibration.calibrate import calibrate, relate
from flexivid.calibration.plan_search import SHORT, search_with
from flexivid.calibration.scoring import Judge, Scorer
from flexivid.sampling.conditions import conditions_for
from flexivid.sampling.encoders import codec_of
from flexivid.sampling.generate import generate
from flexivid.sampling.settings import Sampling, full_macs
from tests.latents.spectra import measure_spectrum

PROMPTS = ["a red ball", "a blue cube rolls right"]
SETTINGS = {"num_inference_steps": 5, "guidance_scale": 2.0, "precision": "fp32"}


@pytest.fixture
def conditions(latent_model):
    videos = torch.rand(4, 3, 7, 32, 32).cumsum(2) / 4 - 1
    latent_model.recipe = replace(latent_model.recipe, spectrum=measure_spectrum(codec_of(latent_model).encode(videos)))
    return conditions_for(latent_model, 4, prompts=PROMPTS)


@pytest.fixture
def settings(latent_model, conditions):
    return Sampling(**SETTINGS).filled(latent_model)._replace(text_tokens=conditions.text_tokens)


def tables_of(planner, model, settings, conditions, extractor):
    if planner in ("searched", "adaptive"):
        return relate([calibrate(model, settings, num_videos=4, conditions=conditions)])
    if planner == "searched_fvd":
        judge = Judge(extractor, torch.randn(8, 6), conditions, "fvd[fake]")
        return [search_with(Scorer(model, settings._replace(fixed_steps=False), judge), SHORT, 4)]
    return []


@pytest.mark.parametrize("planner", ["spectral", "searched", "adaptive", "searched_fvd", "staged"])
def test_a_planner_keeps_its_budget(latent_model, settings, conditions, planner, extractor):
    tables = tables_of(planner, latent_model, settings, conditions, extractor)
    sampling = {**SETTINGS, "planner": planner}
    if planner in ("searched_fvd", "staged"):  # it chooses the number of steps
        latent_model.recipe = replace(
            latent_model.recipe, sampling=replace(latent_model.recipe.sampling, num_inference_steps=5)
        )
        sampling.pop("num_inference_steps")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples = generate(latent_model, 0.6, prompts=PROMPTS, num_videos=4, tables=tables, **sampling)
    assert samples.videos.shape == (4, 3, 6, 32, 32)
    assert samples.measured_macs == samples.predicted_macs
    assert 0 < samples.measured_macs <= 0.6 * 4 * full_macs(latent_model, settings)
