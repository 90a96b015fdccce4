"""The sampling program: plan before, cost after, files that exist; each mistake is one line in three parts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import av
import pytest
import torch

from flexivid import FlexiDiT, FlexiDiTConfig
from flexivid.model.checkpoint import save
from flexivid.model.recipe import Recipe
from flexivid.sample import main
from flexivid.search import main as run_search

RECIPE = Recipe.from_dict(
    {
        "process": {"path": "flow", "target": "x0"},
        "size": [4, 8, 8],
        "fps": 8.0,
        "class_names": ["cat", "dog"],
        "sampling": {"num_inference_steps": 4},
    }
)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the programs that are started
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4"), num_classes=2))
    return str(save(model, tmp_path / "runs" / "tiny" / "version_0", recipe=RECIPE))


def sample(capsys, *words):
    """Lines of stdout; the program must succeed."""
    main(list(map(str, words)))
    return capsys.readouterr().out.splitlines()


def refused(capsys, *words):
    """The one line of stderr; the program must fail as programs do."""
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert error.removeprefix("error: ").startswith("got ")
    assert "; expected " in error
    assert error.count("; ") >= 2
    return error


def test_help_needs_no_torch():
    code = "import sys; from flexivid import sample; sample.build_parser().format_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_help_shows_an_example():
    done = subprocess.run(
        [sys.executable, "-m", "flexivid.sample", "--help"], capture_output=True, text=True, check=True
    )
    assert "python -m flexivid.sample --budget 0.25" in done.stdout
    for option in ("--checkpoint", "--budget", "--schedule", "--num-inference-steps", "--seed", "--no-ema"):
        assert option in done.stdout


def test_verbs_share_one_program(checkpoint):
    command = [sys.executable, "-m", "flexivid", "sample", "--ckpt", checkpoint, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "budget 1: 4 steps of 1x2x2" in done.stdout
    wrong = subprocess.run([*command[:3], "smaple"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.startswith("error: got verb 'smaple'; expected one of")) == (2, True)


def test_plan_before_cost_after(capsys, checkpoint):
    lines = sample(capsys, "--ckpt", checkpoint, "--budget", 1.0, 0.5, "--num-videos", 2)
    assert lines[0].startswith(f"model {checkpoint}: ")
    assert lines[1].startswith("budget 1: 4 steps of 1x2x2")
    assert lines[2].startswith("budget 0.5: 6 steps of 2x4x4, 1 of 1x2x2")
    assert all("MMACs a video" in line for line in lines[1:3])
    assert lines[3].startswith("budget 1: measured ")
    assert lines[4].startswith("budget 0.5: measured ")
    assert all(" s (" in line for line in lines[3:5])
    assert lines[5].startswith("look at samples/grid.png")
    predicted, measured = (lines[i].split(": ")[1] for i in (2, 4))
    assert measured.split()[1] == predicted.split("; ")[1].split(", ")[1].split()[0]


def test_json_holds_everything(capsys, checkpoint, tmp_path):
    lines = sample(capsys, "--ckpt", checkpoint, "--budget", 1.0, 0.25, "--label", "dog", "--json", "--seed", 7)
    told = json.loads(lines[-1])
    full, quarter = told["samples"]
    assert (full["budget"], full["plan"], quarter["budget"]) == (1.0, "4x1x2x2", 0.25)
    assert 0 < quarter["predicted_macs"] == quarter["measured_macs"] <= 0.25 * full["measured_macs"]
    assert full["seconds"] > 0
    assert full["files"] == ["samples/000000_seed7_b1.mp4"]
    files = [*full["files"], *quarter["files"], *told["grid"]]
    assert all((tmp_path / file).stat().st_size > 0 for file in files)
    line = json.loads((tmp_path / "samples" / "manifest.jsonl").read_text().splitlines()[0])
    assert (line["class"], line["label"], line["seed"]) == ("dog", 1, 7)


def test_budgets_in_other_units(capsys, checkpoint):
    gmacs = sample(capsys, "--ckpt", checkpoint, "--budget-gmacs", 0.003, "--num-videos", 2, "--json")
    row = json.loads(gmacs[-1])["samples"][0]
    assert row["predicted_macs"] == row["measured_macs"] <= 2 * 3_000_000
    seconds = sample(capsys, "--ckpt", checkpoint, "--budget-seconds", 100, "--num-videos", 2, "--dry-run")
    assert seconds[1].startswith("one step for one video, in batches as for 2 videos: 1x2x2 ")
    assert seconds[2].startswith("budget 1: 4 steps of 1x2x2")
    assert seconds[2].endswith(" s a video")
    draft = sample(capsys, "--ckpt", checkpoint, "--budget", "draft", "full", "--dry-run")
    assert [line.split(":")[0] for line in draft[1:3]] == ["budget 0.114", "budget 1"]


def test_three_phases(capsys, checkpoint):
    lines = sample(capsys, "--ckpt", checkpoint, "--budget", 0.6, "--planner", "three_phase", "--dry-run")
    assert lines[1].startswith("budget 0.6: 1 step of 1x2x2, 2 of 2x4x4, 1 of 1x2x2")


def test_dashes_and_underscores_are_the_same(capsys, checkpoint):
    dashes = ["--num-inference-steps", 3, "--guidance-scale=2.0", "--dry-run", "--num-videos=2"]
    underscores = ["--num_inference_steps", 3, "--guidance_scale=2.0", "--dry_run", "--num_videos=2"]
    plain = sample(capsys, "--ckpt", checkpoint, *dashes)
    assert plain == sample(capsys, "--checkpoint", checkpoint, *underscores)
    assert plain[1].startswith("budget 1: 3 steps of 1x2x2, each guided")


def test_newest_run_is_found(capsys, checkpoint):
    assert sample(capsys, "--dry-run")[0].startswith("model runs/tiny/version_0: ")


def test_dry_run_writes_nothing(capsys, checkpoint, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    lines = sample(capsys, "--ckpt", checkpoint, "--budget", 0.5, "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
    assert any("latent 4x8x8" in line for line in lines)
    assert lines[-1].startswith("sampling memory about")


def test_explicit_schedules(capsys, checkpoint, tmp_path):
    plans = ["2x2x4x4,2x1x2x2", "4x2x4x4"]
    told = json.loads(sample(capsys, "--ckpt", checkpoint, "--schedule", *plans, "--num-videos", 1, "--json")[-1])
    assert [row["plan"] for row in told["samples"]] == plans
    assert all((tmp_path / row["files"][0]).exists() for row in told["samples"])


def test_size_fps_and_folder(capsys, checkpoint, tmp_path):
    size = ["--num-frames", 2, "--height", 16, "--width", 12, "--fps", 5]
    sample(capsys, "--ckpt", checkpoint, "--num-videos", 1, "--output-dir", "here/there", *size)
    with av.open(str(tmp_path / "here" / "there" / "000000_seed0_b1.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.height, stream.width, stream.average_rate) == (2, 16, 12, 5)


def test_guided_by_a_weak_mode(capsys, checkpoint):
    words = ["--guidance-scale", 2, "--guide-mode", "2x4x4", "--num-videos", 1, "--json"]
    told = json.loads(sample(capsys, "--ckpt", checkpoint, *words)[-1])["samples"][0]
    assert told["plan"] == "4x1x2x2+2x4x4"
    assert told["measured_macs"] == told["predicted_macs"]


def test_guidance_in_an_interval_and_packed(capsys, checkpoint):
    words = ["--guidance-scale", 2, "--guidance", "auto", "--guidance-interval", 0.5, 0.9, "--packing", "always"]
    told = json.loads(sample(capsys, "--ckpt", checkpoint, *words, "--num-videos", 1, "--json")[-1])["samples"][0]
    assert told["plan"] == "1x1x2x2,2x1x2x2+2x4x4,1x1x2x2"
    assert told["measured_macs"] == told["predicted_macs"]


@pytest.mark.slow
def test_compiled(capsys, checkpoint):
    lines = sample(capsys, "--ckpt", checkpoint, "--num-videos", 1, "--compile", "--json")
    assert any(line.startswith("compiled 1 modes in ") for line in lines)
    told = json.loads(lines[-1])["samples"][0]
    assert told["measured_macs"] == told["predicted_macs"]


WRONG = {
    "missing checkpoint": (["--ckpt", "nowhere"], "got checkpoint nowhere, which does not exist"),
    "budget 0": (["--budget", 0], "got budget 0.0; expected a fraction in (0, 1]"),
    "budget 1.5": (["--budget", 1.5], "got budget 1.5; expected a fraction in (0, 1]"),
    "budget too small": (["--budget", 0.01], "got budget 0.01; expected at least 0.0379, which is one step"),
    "budget as word": (["--budget", "half"], "got budget 'half'; expected a fraction in (0, 1] or one of draft"),
    "mode in schedule": (["--schedule", "4x3x3x3"], "got mode 3x3x3; expected one the model has (1x2x2, 2x4x4)"),
    "no schedule": (["--schedule", "banana"], "got schedule part 'banana'; expected COUNTxMODE"),
    "short schedule": (["--schedule", "3x1x2x2", "--num-inference-steps", 4], "got a schedule of 3 steps; expected 4"),
    "unknown mode": (["--modes", "3x3x3"], "got mode 3x3x3; expected one the model has (1x2x2, 2x4x4)"),
    "no mode": (["--modes", "big"], "got patch mode 'big'; expected FRAMESxROWSxCOLUMNS"),
    "label out of range": (["--label", 7], "got labels [7]; expected whole numbers from 0 to 1"),
    "unknown label": (["--label", "zebra"], "got label 'zebra'; expected one of cat, dog"),
    "unknown solver": (["--solver", "rk4"], "got solver 'rk4' for a flow process; expected one of euler, heun"),
    "no steps": (["--num-inference-steps", 0], "got 0 inference steps; expected 1 to 1000"),
    "no videos": (["--num-videos", 0], "got 0 videos; expected at least 1"),
    "no rate": (["--fps", 0], "got --fps 0; expected more than 0"),
    "few gmacs": (["--budget-gmacs", 1e-6], "got --budget-gmacs 1e-06; expected at least 0.0"),
    "few seconds": (["--budget-seconds", 1e-9], "got --budget-seconds 1e-09; expected at least "),
    "two units": (
        ["--budget-gmacs", 1, "--budget-seconds", 1],
        "got --budget-gmacs and --budget-seconds; expected one",
    ),
    "planner": (
        ["--planner", "best"],
        "got planner 'best'; expected one of staged, weak_first, searched, adaptive, three_phase",
    ),
    "nothing searched": (["--planner", "searched"], "got no table of measured errors"),
    "nothing to adapt by": (["--planner", "adaptive"], "got no table of measured errors"),
    "planner of a schedule": (["--schedule", "4x1x2x2", "--planner", "three_phase"], "got --schedule and --planner; e"),
    "no frames": (["--num-frames", 0], "got size (0, 8, 8); expected frames, height, width >= 1"),
    "device": (["--device", "cuda:99"], "got device 'cuda:99', which is not available"),
    "precision": (["--precision", "fp8"], "got precision 'fp8'; expected one of auto"),
    "misspelt flag": (["--bugdet", 0.5], "did you mean '--budget'?"),
    "misspelt flag with a dash": (["--num-video", 3], "did you mean '--num-videos'?"),
    "same budgets": (["--budget", 0.5, 0.5], "got plans of budgets 0.5, 0.5; expected no two alike"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_each_mistake_is_one_line(capsys, checkpoint, tmp_path, kind):
    words, message = WRONG[kind]
    assert message in refused(capsys, "--ckpt", checkpoint, *words)
    assert not (tmp_path / "samples").exists()


def test_no_runs_at_all(capsys, models_folder):
    assert "got no trained model below runs/" in refused(capsys)


def test_without_a_run_the_shipped_model_is_used_with_its_tables(capsys, checkpoint, models_folder, tmp_path):
    run_search(["--checkpoint", checkpoint, "--goal", "fidelity", "--num-videos", "2", "--num-inference-steps", "4"])
    Path(checkpoint).rename(models_folder / "moving_digits")
    capsys.readouterr()
    lines = sample(capsys, "--budget", 0.5)
    note = "no run below runs/: using the shipped model moving_digits; name one with --checkpoint"
    assert lines[0] == note
    assert lines[1].startswith(f"model {models_folder / 'moving_digits'}: ")
    assert lines[2].endswith("; planner searched")
    assert (tmp_path / "samples" / "manifest.jsonl").is_file()
    assert note not in sample(capsys, "--ckpt", "moving_digits", "--dry-run")


def test_a_run_comes_before_the_shipped_model(capsys, checkpoint, models_folder):
    shutil.copytree(checkpoint, models_folder / "moving_digits")
    assert sample(capsys, "--dry-run")[0].startswith("model runs/tiny/version_0: ")


def test_an_unknown_name_lists_the_shipped_models(capsys, checkpoint, models_folder):
    Path(checkpoint).rename(models_folder / "moving_digits")
    message = refused(capsys, "--ckpt", "moving_digit")
    assert "got checkpoint moving_digit, which does not exist" in message
    assert "a .ckpt file, or a shipped model: moving_digits; check the path" in message


def test_folder_that_cannot_be_written(capsys, checkpoint, tmp_path):
    (tmp_path / "file").touch()
    message = refused(capsys, "--ckpt", checkpoint, "--output-dir", "file/below")
    assert "got output folder file/below, which cannot be written (Not a directory)" in message


def test_config_that_does_not_fit(capsys, checkpoint, tmp_path):
    config = tmp_path / checkpoint / "config.json"
    config.write_text(config.read_text().replace('"width": 32', '"width": 64'))
    assert "do not fit their config" in refused(capsys, "--ckpt", checkpoint)
    config.write_text(config.read_text().replace('"width"', '"widht"'))
    assert "did you mean 'width'?" in refused(capsys, "--ckpt", checkpoint)


def test_no_ema_needs_a_ckpt(capsys, checkpoint):
    assert "got --no-ema for" in refused(capsys, "--ckpt", checkpoint, "--no-ema")


def test_ctrl_c_says_what_is_missing(checkpoint, tmp_path):
    command = [
        sys.executable,
        "-m",
        "flexivid.sample",
        "--ckpt",
        checkpoint,
        "--num-videos",
        "2000",
        "--batch-size",
        "1",
    ]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell hands down a deaf ear
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    program = subprocess.Popen(command, text=True, preexec_fn=heard, **pipes)
    limit = time.monotonic() + 120
    while not list(tmp_path.glob("samples/*.mp4")) and program.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    os.kill(program.pid, signal.SIGINT)
    _, error = program.communicate(timeout=120)
    files = sorted(tmp_path.glob("samples/*.mp4"))
    assert program.returncode == 130
    assert "Traceback" not in error
    assert 0 < len(files) < 2000
    assert f"interrupted: {len(files)} of 2000 files are finished in samples; missing: {len(files):06d}_seed" in error
    assert not list(tmp_path.glob("samples/*.part"))
    for file in (files[0], files[-1]):
        with av.open(str(file)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 4
