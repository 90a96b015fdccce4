"""The search program: measures, writes beside the checkpoint, and sampling then goes by what it found."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from flexivid import FlexiDiT, FlexiDiTConfig, Schedule, sample
from flexivid.pipeline import calibration
from flexivid.pipeline.checkpoint import load, save
from flexivid.pipeline.video_io import write_video
from flexivid.search import main

RECIPE = {"process": {"path": "flow", "target": "x0"}, "size": [4, 8, 8], "sampling": {"num_inference_steps": 6}}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4"), num_classes=2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape))
    return save(tmp_path / "runs" / "tiny" / "version_0", model, RECIPE)


def refused(capsys, program, *words):
    with pytest.raises(SystemExit) as stop:
        program(list(map(str, words)))
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert error.startswith("error: got ")
    assert "; expected " in error
    return error


def test_help_needs_no_torch():
    code = "import sys; from flexivid import search; search.build_parser().format_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_search_then_sample(capsys, checkpoint):
    main(["--ckpt", str(checkpoint), "--num-videos", "3", "--batch-size=2", "--max-switches", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "measuring 2 options at every call of 6, 4, 3, 2, 1 steps on 3 videos: 459 sample steps"
    assert lines[-1].startswith(f"wrote {checkpoint}/schedules.json")
    assert (checkpoint / "schedules.png").stat().st_size > 0
    plans = {line.split(": ")[0]: line.split(": ")[1].split("; ")[0] for line in lines[2:-1]}
    words = ["--ckpt", str(checkpoint), "--num-videos", "1", "--json", "--budget"]
    sample.main([*words, "0.6", "0.4"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["samples"]
    assert [row["plan"] for row in told] == [plans["budget 0.6"], plans["budget 0.4"]]
    sample.main([*words, "draft", "balanced", "--planner", "adaptive", "--num-videos", "3"])
    out = capsys.readouterr().out.splitlines()
    assert "adaptive, 6 steps of 1x2x2, 2x4x4, each video its own; at most 0.152 of all" in out[1]
    for row in json.loads(out[-1])["samples"]:
        assert row["predicted_macs"] == row["measured_macs"]


def test_a_number_of_steps_that_is_asked_for_is_kept(capsys, checkpoint):
    main(["--num-videos", "2"])
    words = ["--ckpt", str(checkpoint), "--num-videos", "1", "--json", "--budget", "0.3", "--output-dir"]
    lengths = []
    for given in ([], ["--num-inference-steps", "6"], ["--num-inference-steps", "3", "--planner", "searched"]):
        folder = checkpoint / f"samples{len(lengths)}"
        sample.main([*words, str(folder), *given])
        told = json.loads(capsys.readouterr().out.splitlines()[-1])["samples"][0]
        line = json.loads((folder / "manifest.jsonl").read_text())
        steps = len(Schedule.parse(told["plan"]))
        assert told["predicted_macs"] == told["measured_macs"]
        assert line["sampling"]["num_inference_steps"] == steps
        lengths.append(steps)
    assert lengths[0] in (6, 4, 3, 2, 1)
    assert lengths[1:] == [6, 3]


@pytest.mark.filterwarnings("ignore:got 6 videos")
def test_the_goal_fvd_scores_samples_and_sampling_follows(capsys, checkpoint, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(8):
        frames = np.random.default_rng(number).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8)
        write_video(videos / f"{number}.mp4", frames, 8)
    words = ["--num-videos", "2", "--goal", "fvd", "--num-scored", "6", "--reference", str(videos)]
    main(words)
    first = capsys.readouterr().out.splitlines()
    assert first[1].startswith("measuring 2 options")
    told = [line for line in first if "fvd[motion]" in line]
    assert [line.split(":")[0] for line in told] == [f"budget {budget}" for budget in (0.8, 0.6, 0.4, 0.25, 0.15)]
    main(words)
    again = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("measuring") for line in again)  # errors are known
    assert [line for line in again if "fvd[motion]" in line] == told
    common = ["--num-videos", "1", "--json", "--budget", "0.6"]
    plans = {}
    for planner in (None, "searched_fvd", "searched"):
        sample.main([*common, *(["--planner", planner] if planner else [])])
        row = json.loads(capsys.readouterr().out.splitlines()[-1])["samples"][0]
        assert row["predicted_macs"] == row["measured_macs"]
        plans[planner] = row["plan"]
    assert plans[None] == plans["searched_fvd"] == told[1].split(": ")[1].split(";")[0]
    assert (
        plans["searched"] == next(line for line in first if line.startswith("budget 0.6")).split(": ")[1].split(";")[0]
    )
    assert "expected one of fidelity, fvd" in refused(capsys, main, "--goal", "speed")


def test_searched_again_after_training(capsys, checkpoint):
    main(["--num-videos", "1"])
    model = load(checkpoint)
    torch.nn.init.zeros_(model.mode_embedding)
    save(checkpoint, model, model.recipe)
    assert "got schedules.json of model" in refused(capsys, sample.main, "--budget", 0.5, "--dry-run")
    sample.main(["--budget", "0.5", "--dry-run", "--planner", "weak_first"])
    main(["--num-videos", "1"])
    sample.main(["--budget", "0.5", "--dry-run"])


def test_interrupted_search_writes_nothing(capsys, checkpoint, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(calibration, "guided_output", stop)
    with pytest.raises(SystemExit) as stopped:
        main(["--num-videos", "1"])
    assert stopped.value.code == 130
    assert sorted(path.name for path in checkpoint.iterdir()) == ["config.json", "model.safetensors"]


def test_mistakes_are_one_line(capsys, checkpoint):
    assert "got 0 videos; expected at least 1" in refused(capsys, main, "--num-videos", 0)
    assert "got max_switches=-1; expected 0 or more" in refused(capsys, main, "--max-switches", -1)
    assert "got mode 9x9x9" in refused(capsys, main, "--modes", "9x9x9")
    assert "did you mean '--max_switches'?" in refused(capsys, main, "--max-switch", 2)
    assert not (checkpoint / "schedules.json").exists()
