"""The main job takes the network of which enough steps fit into its minutes, unless one is asked for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
JOB = ROOT / "conf" / "train_video.yaml"
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("conf/network_for.py")


@pytest.fixture
def job():
    return yaml.safe_load(JOB.read_text())


def commands(*words):
    """What make would run."""
    return subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("seconds", "network"), [(0.3, "tiny"), (0.52, "tiny"), (0.53, "nano"), (9.0, "nano")])
def test_enough_of_the_steps_have_to_fit(script, job, monkeypatch, capsys, seconds, network):
    assert job["trainer"]["max_steps"] == 2300  # 1035 steps in 540 seconds: 0.522 s each
    monkeypatch.setattr(script, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(script, "seconds_of_step", lambda job, name: {"tiny": seconds}[name])  # the last is not timed
    assert script.choose(job, ["tiny", "nano"]) == network
    told = capsys.readouterr().err
    assert f"{seconds:.2f} s a step" in told
    assert ("smaller network" in told) == (network == "nano")


def test_an_accelerator_gets_the_best_network_untimed(script, job, monkeypatch):
    monkeypatch.setattr(script, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.delattr(script, "seconds_of_step")
    assert script.choose(job, ["tiny", "nano"]) == "tiny"


def test_a_step_of_the_job_is_timed(script, job, monkeypatch):
    calls = []
    forward = script.FlexiDiT.forward
    monkeypatch.setattr(
        script.FlexiDiT,
        "forward",
        lambda model, x, *rest: calls.append((model.config, x.shape)) or forward(model, x, *rest),
    )
    job["data"]["batch_size"] = 2
    assert script.seconds_of_step(job, "nano") > 0
    config, shape = calls[0]
    assert len(calls) == 1 + script.TIMED
    assert (config.width, config.depth, tuple(map(str, config.modes))) == (
        128,
        4,
        tuple(job["model"]["network"]["modes"]),
    )
    assert shape == (2, 3, 8, 32, 32)


def test_the_name_alone_is_on_stdout(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["network_for.py", str(JOB), "nano"])
    script.main()
    assert capsys.readouterr().out == "nano\n"


@needs_make
def test_make_asks_for_a_network():
    asked = commands("train-video")
    assert "--config conf/model/$(.venv/bin/python conf/network_for.py conf/train_video.yaml tiny nano).yaml" in asked


@needs_make
def test_make_takes_the_network_that_is_named():
    asked = commands("train-video", "MODEL=S")
    assert "--config conf/train_video.yaml --config conf/model/S.yaml" in asked
    assert "network_for" not in asked


@needs_make
def test_make_leaves_the_network_of_another_configuration():
    asked = commands("train-video", "CONFIG=conf/text_to_video.yaml", "DATA=videos")
    assert "conf/model" not in asked
    assert "--config conf/text_to_video.yaml" in asked
