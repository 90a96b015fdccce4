"""Shipped models are found by name, load as float32, are in the wheel, and nothing is written beside them."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import flexivid
from flexivid.budget.schedule import Step
from flexivid.budget.table import ErrorTable, find_table, read_tables, write_tables
from flexivid.model import shipped
from flexivid.model.checkpoint import choose, fingerprint, save
from flexivid.model.recipe import Recipe
from flexivid.model.shipped import is_shipped, locate, refuse_shipped, shipped_models
from flexivid.sampling.plan import tables_folder

ROOT = Path(__file__).resolve().parents[2]
REAL = shipped.FOLDER / "moving_digits"
needs_real = pytest.mark.skipif(not (REAL / "model.safetensors").is_file(), reason="the trained model is not added yet")


@pytest.fixture
def ship(load_script):
    """The function that makes a shipped model from a run."""
    return load_script("benchmarks/ship_model.py").ship


@pytest.fixture
def run(model, tmp_path):
    """The folder of a run with a table of measured errors, and one of another model."""
    folder = save(model, tmp_path / "runs" / "version_0", recipe=replace(model.recipe, global_step=1234))
    options = tuple(Step(mode) for mode in model.config.modes)
    rows = [[0.0, 0.5], [0.0, 0.25]]
    write_tables(folder, [ErrorTable(fingerprint(model), {"steps": 2}, options, rows, [[], []], {"num_videos": 3})])
    return folder


def outputs(model):
    x = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    time = torch.tensor([0.3, 0.9])
    model.requires_grad_(False)
    return [model(x, time, flexivid.Condition(torch.tensor([0, 2])), mode=mode) for mode in model.config.modes]


def test_a_shipped_model_loads_by_name_as_float32(ship, run, model, models_folder, tmp_path, monkeypatch):
    told = ship(run, "tiny")
    monkeypatch.chdir(tmp_path)
    loaded = flexivid.load("tiny")
    assert shipped_models() == ["tiny"]
    assert {tensor.dtype for tensor in load_file(models_folder / "tiny" / "model.safetensors").values()} == {
        torch.float16
    }
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].half().float())
    for new, old in zip(outputs(loaded), outputs(model), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0.01 * float(old.abs().max()))
    assert told["model"] == fingerprint(loaded)
    assert told["output_change"].keys() == {"1x2x2", "2x4x4"}
    assert 0 < max(told["output_change"].values()) < 0.01


def test_tables_are_known_by_the_rounded_weights(ship, run, model, models_folder):
    assert ship(run, "tiny")["tables"] == 1
    (table,) = read_tables(tables_folder("tiny"))
    assert table.model == fingerprint(flexivid.load("tiny")) != fingerprint(model)
    assert find_table([table], fingerprint(flexivid.load("tiny")), {"steps": 2}).errors == [[0.0, 0.5], [0.0, 0.25]]


def test_tables_of_other_weights_are_not_shipped(ship, run, build_model, models_folder):
    save(build_model(modes=("1x2x2", "2x2x4")), run, recipe=Recipe(size=(4, 8, 8)))
    assert ship(run, "tiny")["tables"] == 0
    assert not (models_folder / "tiny" / "schedules.json").exists()


def test_the_card_says_what_is_known(ship, run, models_folder, tmp_path):
    (tmp_path / "curve.png").write_bytes(b"picture")
    (run / "config.yaml").write_text(f"data:\n  root: {tmp_path}\n")
    (tmp_path / "recipe.json").write_text('{"version": 2, "num_clips": 40, "vary": true}')
    ship(run, "tiny", quality="| budget | fvd |\n", curve=tmp_path / "curve.png")
    text = (models_folder / "tiny" / "card.md").read_text()
    for words in ("# tiny", "1234 steps", "1x2x2, 2x4x4", "4 frames of 8x8", "cat, dog, 7", "| budget | fvd |"):
        assert words in text
    assert "`python data/moving_digits.py --num-clips 40 --vary`" in text
    assert (models_folder / "tiny" / "curve.png").read_bytes() == b"picture"
    modes = {file.stat().st_mode & 0o444 for file in (models_folder / "tiny").iterdir()}
    assert modes == {0o444}  # readable by everyone
    assert "{" not in text


def test_a_model_that_is_too_large_leaves_the_old_one(ship, run, models_folder, tmp_path):
    before = ship(run, "tiny")["model"]
    (tmp_path / "curve.png").write_bytes(bytes(16_000_001))
    with pytest.raises(ValueError, match=r"got 16\.\d MB for tiny; expected at most 16; ship a smaller network"):
        ship(run, "tiny", curve=tmp_path / "curve.png")
    assert fingerprint(flexivid.load("tiny")) == before
    assert [path.name for path in models_folder.parent.iterdir()] == ["models"]


def test_weights_that_float16_cannot_hold_are_refused(ship, model, models_folder, tmp_path):
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = 70_000
    with pytest.raises(ValueError, match=r"got a weight of 70000 .*; expected less than 65504; train it anew"):
        ship(save(model, tmp_path / "run"), "tiny")
    assert shipped_models() == []


def test_a_path_comes_before_a_name(ship, run, build_model, models_folder, tmp_path, monkeypatch):
    ship(run, "tiny")
    monkeypatch.chdir(tmp_path)
    assert locate("tiny") == models_folder / "tiny"
    own = save(build_model(depth=1), "tiny", recipe=Recipe(size=(4, 8, 8)))
    assert locate("tiny") == own
    assert flexivid.load("tiny").config.depth == 1


@pytest.mark.parametrize("name", ["tin", "../models/tiny", "", ".", "nowhere/tiny"])
def test_only_names_are_names(ship, run, models_folder, tmp_path, monkeypatch, name):
    ship(run, "tiny")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"got checkpoint .*, or a shipped model: tiny; check the path"):
        flexivid.load(name)


def test_programs_choose_what_is_named_then_a_run_then_the_shipped_model(ship, run, models_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="got no trained model below"):
        choose(None, root=tmp_path / "none")
    ship(run, "moving_digits")
    path = models_folder / "moving_digits"
    assert choose("moving_digits") == (path, "")
    assert choose(None, root=run.parent) == (run, "")
    assert choose(None, root="none") == (
        path,
        "no run below none/: using the shipped model moving_digits; name one with --checkpoint",
    )


def test_nothing_is_written_beside_a_shipped_model(ship, run, models_folder, tmp_path):
    ship(run, "tiny")
    assert is_shipped(models_folder / "tiny")
    assert not is_shipped(run)
    refuse_shipped(run, "measured schedules")
    with pytest.raises(ValueError, match=r"got the shipped model tiny, .* for measured schedules; copy it"):
        refuse_shipped(models_folder / "tiny", "measured schedules")
    command = f"mkdir -p runs && cp -r {models_folder / 'tiny'} runs/tiny"  # as the message says
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert fingerprint(flexivid.load(tmp_path / "runs" / "tiny")) == fingerprint(flexivid.load("tiny"))


def test_the_wheel_holds_shipped_models(tmp_path):
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    files = [f"flexivid/models/moving_digits/{name}" for name in ("config.json", "model.safetensors", "card.md")]
    for name in ("flexivid/__init__.py", *files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    words = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", "built"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert [name for name in files if not (tmp_path / "built" / name).is_file()] == []


def test_git_does_not_ignore_shipped_models():
    files = ("config.json", "model.safetensors", "schedules.json", "card.md", "curve.png")
    words = ["git", "check-ignore", *(f"flexivid/models/moving_digits/{name}" for name in files)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""


@needs_real
def test_the_real_one_is_small_and_complete():
    sizes = {file.name: file.stat().st_size for file in REAL.iterdir()}
    assert sizes.keys() >= {"config.json", "model.safetensors", "schedules.json", "card.md"}
    assert sum(sizes.values()) < 16e6
    model = flexivid.load("moving_digits")
    assert model.config.num_classes == 10
    assert model.recipe.class_names == tuple("0123456789")
    tables = read_tables(tables_folder("moving_digits"))
    assert {table.model for table in tables} == {fingerprint(model)}


@needs_real
def test_the_real_one_samples_in_an_empty_folder_offline(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "flexivid.sample", "--budget", "0.25", "--num-videos", "10", "--json"]
    started = time.perf_counter()
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("no run below runs/: using the shipped model moving_digits")
    assert len(json.loads(lines[-1])["samples"][0]["files"]) == 10
    assert seconds < 120  # under 10 on idle cores; tests share them
