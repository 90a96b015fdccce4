"""The main job takes the network of which enough steps fit into its minutes, unless one is asked for."""

import os
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


def run_of(folder, network, **changes):
    """A run with a checkpoint and the settings of a network of conf/model; returns the checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    settings = yaml.safe_load((ROOT / f"conf/model/{network}.yaml").read_text())
    settings["model"]["network"] |= {"in_channels": 3, **changes}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "checkpoints" / "last.ckpt").touch()
    return folder / "checkpoints" / "last.ckpt"


def test_who_resumes_goes_on_with_the_network_of_the_run(script, monkeypatch, capsys, tmp_path):
    older = run_of(tmp_path / "version_0", "tiny")
    newer = run_of(tmp_path / "version_1", "nano")
    os.utime(older, (1, 1))
    monkeypatch.delattr(script, "choose")  # nothing is timed
    for resumed, network in ((tmp_path, "nano"), (older, "tiny"), (newer, "nano")):
        monkeypatch.setattr(sys, "argv", ["network_for.py", str(JOB), "tiny", "nano", "--resumed", str(resumed)])
        script.main()
        assert capsys.readouterr().out == f"{network}\n"


def test_a_run_that_is_none_of_the_networks_names_none(script, tmp_path):
    assert script.network_of(run_of(tmp_path / "version_0", "tiny", width=192), ["tiny", "nano"]) is None
    assert script.network_of(tmp_path / "missing.ckpt", ["tiny", "nano"]) is None
    (tmp_path / "version_0" / "config.yaml").unlink()
    assert script.network_of(tmp_path, ["tiny", "nano"]) is None


@needs_make
@pytest.mark.parametrize(
    ("words", "resumed"),
    [
        ("--ckpt_path last", "runs/moving_digits"),
        ("--data.size 64 --ckpt_path=last", "runs/moving_digits"),
        (
            "--ckpt_path runs/a/version_0/checkpoints/last.ckpt --seed_everything 1",
            "runs/a/version_0/checkpoints/last.ckpt",
        ),
    ],
)
def test_make_asks_for_the_network_of_the_run_that_goes_on(words, resumed):
    assert f"conf/train_video.yaml tiny nano --resumed '{resumed}').yaml" in commands("train-video", f"ARGS={words}")


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
