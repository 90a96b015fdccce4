"""A recipe survives files, old and new, and refuses what it does not understand."""

from __future__ import annotations

import json
import re

import pytest

from flexivid.budget.spectral import Spectrum
from flexivid.diffusion.process import Process
from flexivid.latents.settings import CodecSettings
from flexivid.model.recipe import Recipe, SamplingDefaults
from flexivid.model.shipped import FOLDER

SPECTRUM = Spectrum(((1.0,), (1.5, 0.5), (1.0, 1.0)), 0.5, 8)
FULL = Recipe(
    Process("cosine", "noise"),
    *("vae", (1, 2, 2), 12.5, ("cat", "dog"), SamplingDefaults(7, 2.0, "ddim", 3.0, 1.5), 9, 4, SPECTRUM),
    codec_fingerprint="12ab",
    text_encoder={"source": "t5", "dtype": "bf16"},
    text_fingerprint="34cd",
    num_frames=5,
)


def test_a_recipe_survives_json():
    assert Recipe.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


def test_plain_data_and_typed_values_mean_the_same():
    assert Recipe(**FULL.to_dict()) == FULL
    assert isinstance(Recipe(size=[1, 2, 3]).size, tuple)


def test_an_old_file_is_filled_with_defaults():
    recipe = Recipe.from_dict({"size": [8, 32, 32]})
    assert (recipe.process, recipe.codec, recipe.fps) == (Process("flow", "x0"), CodecSettings(), 8.0)
    assert recipe.class_names == ()
    assert (recipe.sampling.num_inference_steps, recipe.step_floor, recipe.spectrum) == (20, None, None)
    assert Recipe.from_dict({}) == Recipe()


def test_what_is_unknown_is_left_out_of_files():
    assert Recipe().to_dict().keys() == {"process", "codec", "fps", "class_names", "sampling"}


@pytest.mark.parametrize("folder", sorted(FOLDER.iterdir()), ids=lambda folder: folder.name)
def test_shipped_recipes_are_written_as_they_were_read(folder):
    plain = json.loads((folder / "config.json").read_text())["recipe"]
    assert Recipe.from_dict(plain).to_dict() == plain


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("process", {"path": "round"}),
        ("process", {"path": "flow", "aim": "x0"}),
        ("process", None),
        ("codec", 3),
        ("codec", {"source": "vae", "dtyp": "bf16"}),
        ("text_encoder", {"source": "t5", "dtype": "int8"}),
        ("num_frames", 0),
        ("size", [8, 32]),
        ("size", [8, 0, 32]),
        ("size", "832"),
        ("fps", "fast"),
        ("fps", 0),
        ("fps", True),
        ("class_names", "cat"),
        ("class_names", [1, 2]),
        ("sampling", {"num_steps": 4}),
        ("sampling", {"num_inference_steps": 2.5}),
        ("sampling", {"guidance_scale": "2"}),
        ("sampling", [20]),
        ("global_step", -1),
        ("step_floor", "4"),
        ("spectrum", {"power": {}}),
    ],
)
def test_values_of_another_kind_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"got a recipe with {name}=.*; expected .*; correct the recipe"):
        Recipe.from_dict({**FULL.to_dict(), name: value})


def test_unknown_entries_are_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"got recipe entry 'clas_names'; expected .*; did you mean 'class_names'"):
        Recipe.from_dict({"clas_names": []})
    with pytest.raises(ValueError, match=re.escape("got a recipe that is ['flow']; expected names and values")):
        Recipe.from_dict(["flow"])
