"""The search program: measures, writes beside the checkpoint, and sampling then goes by what it found."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from flexivid import FlexiDiT, FlexiDiTConfig, Schedule, sample
from flexivid.budget.table import read_tables
from flexivid.calibration import calibrate as calibration
from flexivid.calibration import plan_search
from flexivid.media.write import write_video
from flexivid.model.checkpoint import load, save
from flexivid.model.recipe import Recipe
from flexivid.search import main

RECIPE = Recipe(size=(4, 8, 8), sampling={"num_inference_steps": 6})


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
    return save(model, tmp_path / "runs" / "tiny" / "version_0", recipe=RECIPE)


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


def write_videos(folder):
    folder.mkdir()
    for number in range(8):
        frames = np.random.default_rng(number).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", frames, 8)
    return folder


def sampled(capsys, *words):
    sample.main(["--num-videos", "1", "--json", *words])
    return json.loads(capsys.readouterr().out.splitlines()[-1])["samples"]


@pytest.mark.filterwarnings(r"ignore:got \d+ videos")
def test_search_then_sample(capsys, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_search, "FEWEST_VIDEOS", 2)
    videos = write_videos(tmp_path / "videos")
    main(["--ckpt", str(checkpoint), "--num-videos", "6", "--reference", str(videos)])
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("probing")]
    assert lines[1] == "plans of any number of steps, 6 videos in the last round, 8 real clips"
    assert lines[2].startswith("step floor ")
    assert lines[-1].startswith(f"wrote {checkpoint}/schedules.json")
    assert (checkpoint / "schedules.png").stat().st_size > 0
    plans = {line.split(": ")[0]: line.split(": ")[1].split("; ")[0].split(", ")[0] for line in lines[3:-1]}
    assert list(plans) == [f"budget {budget:g}" for budget in plan_search.SEARCHED_BUDGETS]
    told = sampled(capsys, "--ckpt", str(checkpoint), "--budget", "0.5", "0.3", "0.1")
    short = [Schedule.parse(row["plan"]).short for row in told]
    assert short == [plans[f"budget {budget}"] for budget in (0.5, 0.3, 0.1)]
    assert all(row["predicted_macs"] == row["measured_macs"] for row in told)
    sample.main(["--budget", "0.5", "--dry-run"])
    assert "; planner searched_fvd" in capsys.readouterr().out


@pytest.mark.filterwarnings(r"ignore:got \d+ videos")
def test_a_search_with_other_options_says_which_sampling_needs(capsys, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_search, "FEWEST_VIDEOS", 2)
    options = ["--num-inference-steps", "8", "--solver", "unipc"]
    main(["--num-videos", "4", "--reference", str(write_videos(tmp_path / "videos")), *options])
    lines = capsys.readouterr().out.splitlines()
    end = "with the same --num-inference-steps, --solver, --planner searched_fvd; look at"
    assert f"schedules.json, which flexivid.sample uses {end}" in lines[-1]
    (line,) = [line for line in lines if line.startswith("budget 0.3: ")]
    (row,) = sampled(capsys, "--budget", "0.3", *options, "--planner", "searched_fvd")
    assert Schedule.parse(row["plan"]).short == line.split(": ")[1].split("; ")[0].split(", ")[0]


def test_search_for_fidelity_then_sample(capsys, checkpoint):
    main(
        ["--ckpt", str(checkpoint), "--goal", "fidelity", "--num-videos", "3", "--batch-size=2", "--max-switches", "2"]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "measuring 3 options at every call of 6, 4, 3, 2, 1 steps on 3 videos: 534 sample steps"
    assert lines[-1].startswith(f"wrote {checkpoint}/schedules.json")
    assert (checkpoint / "schedules_fidelity.png").stat().st_size > 0
    plans = {line.split(": ")[0]: line.split(": ")[1].split("; ")[0] for line in lines[2:-1]}
    words = ["--ckpt", str(checkpoint), "--budget"]
    assert [row["plan"] for row in sampled(capsys, *words, "0.6", "0.4")] == [plans["budget 0.6"], plans["budget 0.4"]]
    sample.main([*words, "draft", "balanced", "--planner", "adaptive", "--num-videos", "3", "--json"])
    out = capsys.readouterr().out.splitlines()
    assert "adaptive, 6 steps of 1x2x2, 2x4x4, each video its own; at most 0.152 of all" in out[1]
    for row in json.loads(out[-1])["samples"]:
        assert row["predicted_macs"] == row["measured_macs"]


def test_a_number_of_steps_that_is_asked_for_is_kept(capsys, checkpoint):
    main(["--goal", "fidelity", "--num-videos", "2"])
    capsys.readouterr()
    lengths = []
    for given in ([], ["--num-inference-steps", "6"], ["--num-inference-steps", "3", "--planner", "searched"]):
        folder = checkpoint / f"samples{len(lengths)}"
        (told,) = sampled(capsys, "--ckpt", str(checkpoint), "--budget", "0.3", "--output-dir", str(folder), *given)
        line = json.loads((folder / "manifest.jsonl").read_text())
        steps = len(Schedule.parse(told["plan"]))
        assert told["predicted_macs"] == told["measured_macs"]
        assert line["sampling"]["num_inference_steps"] == steps
        lengths.append(steps)
    assert lengths[0] in (6, 4, 3, 2, 1)
    assert lengths[1:] == [6, 3]


@pytest.mark.filterwarnings(r"ignore:got \d+ videos")
def test_scores_come_before_errors(capsys, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_search, "FEWEST_VIDEOS", 2)
    main(["--num-videos", "6", "--reference", str(write_videos(tmp_path / "videos"))])
    main(["--goal", "fidelity", "--num-videos", "2"])  # leaves the scores where they are
    capsys.readouterr()
    plans = {
        planner: sampled(capsys, "--budget", "0.6", *(["--planner", planner] if planner else []))[0]["plan"]
        for planner in (None, "searched_fvd", "searched")
    }
    assert plans[None] == plans["searched_fvd"]
    kinds = [type(table).__name__ for table in read_tables(checkpoint)]
    assert sorted(set(kinds)) == ["ErrorTable", "ScoreTable"]


def test_without_real_videos_the_error_names_them(capsys, checkpoint):
    assert "--reference" in refused(capsys, main)


def test_searched_again_after_training(capsys, checkpoint):
    main(["--goal", "fidelity", "--num-videos", "1"])
    model = load(checkpoint)
    torch.nn.init.zeros_(model.mode_embedding)
    save(model, checkpoint)
    assert "got schedules.json of model" in refused(capsys, sample.main, "--budget", 0.5, "--dry-run")
    sample.main(["--budget", "0.5", "--dry-run", "--planner", "weak_first"])
    main(["--goal", "fidelity", "--num-videos", "1"])
    sample.main(["--budget", "0.5", "--dry-run"])


@pytest.mark.slow
def test_two_searches_of_one_model_at_once_lose_nothing(checkpoint):
    command = [sys.executable, "-m", "flexivid.search", "--ckpt", str(checkpoint), "--goal", "fidelity"]
    steps = ("3", "4")
    programs = [
        subprocess.Popen([*command, "--num-videos", "1", "--num-inference-steps", number], stdout=subprocess.DEVNULL)
        for number in steps
    ]
    assert [program.wait(timeout=120) for program in programs] == [0, 0]
    assert {str(table.settings["num_inference_steps"]) for table in read_tables(checkpoint)} == set(steps)


def test_options_of_the_other_goal_are_refused(capsys, checkpoint):
    assert "got --max-switches for goal fvd; expected it for fidelity alone" in refused(
        capsys, main, "--max-switches", 3
    )
    fidelity = ("--goal", "fidelity", "--reference", "videos")
    assert "got --reference for goal fidelity; expected it for fvd alone" in refused(capsys, main, *fidelity)
    assert "got --planner in a search" in refused(capsys, main, "--planner", "staged")


def test_interrupted_search_writes_nothing(capsys, checkpoint, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(calibration.GuidedDenoiser, "__call__", stop)
    with pytest.raises(SystemExit) as stopped:
        main(["--goal", "fidelity", "--num-videos", "1"])
    assert stopped.value.code == 130
    assert sorted(path.name for path in checkpoint.iterdir()) == ["config.json", "model.safetensors"]


def test_the_shipped_model_is_not_written_to(capsys, checkpoint, models_folder):
    checkpoint.rename(models_folder / "moving_digits")
    for words in ([], ["--ckpt", "moving_digits"]):
        assert "got the shipped model moving_digits, which must stay as it is" in refused(capsys, main, *words)
    assert len(list((models_folder / "moving_digits").iterdir())) == 2


def test_mistakes_are_one_line(capsys, checkpoint):
    fidelity = ("--goal", "fidelity")
    assert "expected one of fvd, fidelity" in refused(capsys, main, "--goal", "speed")
    assert "got 0 videos; expected at least 1" in refused(capsys, main, *fidelity, "--num-videos", 0)
    assert "got max_switches=-1; expected 0 or more" in refused(capsys, main, *fidelity, "--max-switches", -1)
    assert "got mode 9x9x9" in refused(capsys, main, *fidelity, "--modes", "9x9x9")
    assert "got 2 numbers of steps for goal fvd" in refused(capsys, main, "--num-inference-steps", 4, 6)
    assert "did you mean '--max-switches'?" in refused(capsys, main, "--max-switch", 2)
    assert not (checkpoint / "schedules.json").exists()
