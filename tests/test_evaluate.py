"""The evaluation program: plan before, curve after, work that is kept; each mistake is one line in three parts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from flexivid import FlexiDiT, FlexiDiTConfig
from flexivid.evaluate import main
from flexivid.evaluation.features import ClipFeatures
from flexivid.evaluation.ranks import Ranks, evaluate_together
from flexivid.evaluation.result import Evaluation
from flexivid.evaluation.run import Request, finish, job_of, prepare, work
from flexivid.media.write import write_picture, write_video
from flexivid.model.checkpoint import save
from flexivid.model.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore:got .* videos. expected at least")  # distances of few are rough
RECIPE = Recipe.from_dict(
    {
        "process": {"path": "flow", "target": "x0"},
        "size": [4, 16, 16],
        "fps": 8.0,
        "class_names": ["cat", "dog"],
        "sampling": {"num_inference_steps": 2},
        "global_step": 70,
    }
)
QUICK = ("--num-videos", 6, "--batch-size", 2, "--metric", "motion")


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the programs that are started
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write_videos(tmp_path):
    """A function that fills a folder with videos of noise, all different."""

    def write(name, number=8, frames=5, *, seed=0):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for i in range(number):
            write_video(folder / f"{i}.mp4", rng.integers(0, 256, (frames, 16, 16, 3), np.uint8), 8)
        return folder

    return write


@pytest.fixture
def run(tmp_path, write_videos):
    """The folder of a run that was trained on videos."""
    torch.manual_seed(0)
    model = FlexiDiT(FlexiDiTConfig(width=32, depth=1, num_heads=2, modes=("1x2x2", "2x4x4"), num_classes=2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape))
    folder = save(model, tmp_path / "runs" / "tiny" / "version_0", recipe=RECIPE)
    write_videos("videos")
    (folder / "config.yaml").write_text("data:\n  root: videos\n")
    return folder


def evaluate(capsys, *words):
    """Lines of stdout but for a progress bar; the program must succeed."""
    main(list(map(str, words)))
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith("probing")]


def refused(capsys, *words):
    """The one line of stderr that counts; the program must fail as programs do."""
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert error.startswith("error: got ")
    assert "; expected " in error
    assert error.count("; ") >= 2
    return error


def test_help_needs_no_torch():
    code = "import sys; from flexivid.evaluate import build_parser; build_parser().format_help()"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_dry_run_says_what_it_would_do_and_writes_nothing(capsys, run, tmp_path):
    before = sorted(tmp_path.rglob("*.*"))
    lines = evaluate(capsys, *QUICK, "--dry-run", "--budgets", 1, 0.5)
    assert lines[0].startswith("model runs/tiny/version_0: ")
    assert lines[1] == "full compute: 2 native steps; step floor not measured"
    assert lines[2].startswith("budget 1: 2 steps of 1x2x2")
    assert lines[3].startswith("budget 0.5: ")
    assert lines[4].startswith("budget 0.5: 1 step of 1x2x2")
    assert lines[4].endswith("planner fewer_steps")
    assert lines[5] == "reference videos (train): 6 of 7 clips of 7 videos"
    assert lines[6].startswith("metric fvd[motion]6_4f: ")
    assert "MMACs to generate, on 1 device; files go to runs/tiny/version_0/evaluation" in lines[7]
    assert [file for file in sorted(tmp_path.rglob("*.*")) if "cache" not in str(file)] == before


def test_the_shipped_model_needs_a_reference_and_is_not_written_to(capsys, run, models_folder, tmp_path):
    (run / "config.yaml").unlink()
    run.rename(models_folder / "moving_digits")
    message = refused(capsys, *QUICK)
    assert "got no --reference for the shipped model moving_digits" in message
    assert "moving_digits/card.md says" in message
    lines = evaluate(capsys, *QUICK, "--reference", "videos", "--budgets", 1)
    assert lines[0] == "no run below runs/: using the shipped model moving_digits; name one with --checkpoint"
    assert (tmp_path / "evaluation" / "evaluation.json").is_file()
    assert len(list((models_folder / "moving_digits").iterdir())) == 2


def test_a_curve_with_its_protocol(capsys, run):
    lines = evaluate(capsys, *QUICK, "--budgets", 1, 0.5, "--json")
    told = json.loads(lines[-1])
    assert [row["budget"] for row in told["budgets"]] == [1.0, 0.5]
    assert told["budgets"][0]["fidelity"] is None
    assert told["budgets"][1]["fidelity"]["psnr"] > 0
    assert told["protocol"]["reference_split"] == "train"
    assert (told["metric"], told["global_step"]) == ("fvd[motion]6_4f", 70)
    files = told.pop("files")
    kept = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert kept == told
    assert Evaluation.from_json(kept).rows[1].budget == 0.5
    assert [Path(file).is_file() for file in files.values()] == [True] * 3
    page = (run / "evaluation" / "index.html").read_text()
    assert page.count("data:image/webp") == 4 * 6  # two budgets, one native step, and real videos
    (row,) = [line for line in lines if line.split()[:1] == ["0.5"]]
    weak = told["budgets"][1]
    assert weak["rival"]["schedule"] == "1x1x2x2"
    (fvd, fewer), words = (one["scores"]["fvd"] for one in (weak, weak["rival"])), row.split("  ")
    for word in (f"{fvd:.4g}", f"{fewer:.4g} (1x1x2x2)", f"{weak['scores']['floor']:.4g}", "-"):
        assert word in [one.strip() for one in words]  # six videos are too few for endless ones
    assert "Real against real: what as many videos of a perfect generator would score." in page
    assert any("endless videos" in line for line in lines)
    assert any(line.startswith("Endless videos: ") for line in lines)


def test_without_rivals_there_are_no_samples_and_no_columns_of_them(capsys, run):
    lines = evaluate(capsys, *QUICK, "--budgets", 1, 0.5, "--no-rivals", "--json")
    assert [row["rival"] for row in json.loads(lines[-1])["budgets"]] == [None, None]
    assert not any("fewer" in line for line in lines[:-1])
    assert (run / "evaluation" / "index.html").read_text().count("data:image/webp") == 3 * 6


def test_held_out_clips_are_the_reference_where_there_are_enough(capsys, run, write_videos):
    write_videos("set/train", 6)
    write_videos("set/held_out", 5)
    (run / "config.yaml").write_text("data:\n  root: set\n")
    words = ("--metric", "motion", "--dry-run", "--num-videos")
    splits = {}
    for name, more in {
        "few": (5,),
        "many": (6,),
        "named": (5, "--split", "train"),
        "other": (5, "--reference", "videos"),
    }.items():
        (splits[name],) = [line for line in evaluate(capsys, *words, *more) if line.startswith("reference ")]
    assert {name: line.split("(")[1].split(")")[0] for name, line in splits.items()} == {
        "few": "held_out",
        "many": "train",
        "named": "train",
        "other": "all",
    }


def test_dashes_and_underscores_are_the_same(capsys, run):
    options = ("num-inference-steps", 1), ("batch-size", 3), ("num-videos", 4), ("num-frames", 5), ("output-dir", "x")
    dashes, underscores = (
        [word for name, value in options for word in ("--" + name.replace("-", mark), value)] for mark in "-_"
    )
    first, second = (evaluate(capsys, *words, "--metric=motion", "--dry_run") for words in (dashes, underscores))
    assert first == second
    assert first[-2].startswith("metric fvd[motion]4_5f")


def test_a_second_call_makes_nothing_anew(capsys, run, monkeypatch):
    first = evaluate(capsys, *QUICK, "--budgets", 1, 0.5, "--json")
    monkeypatch.setattr("flexivid.evaluation.samples.generate_batches", None)
    monkeypatch.setattr("flexivid.evaluation.clips.outcomes", lambda requests, pool: iter(()))
    monkeypatch.setattr("flexivid.evaluation.report._films_of_clips", lambda clips, count: [])
    assert evaluate(capsys, *QUICK, "--budgets", 1, 0.5, "--json")[-1] == first[-1]


def test_explicit_schedules(capsys, run):
    plans = ["2x2x4x4", "1x2x4x4,1x1x2x2"]
    told = json.loads(evaluate(capsys, *QUICK, "--schedule", *plans, "--json")[-1])
    assert [row["schedule"] for row in told["budgets"]] == plans
    assert [row["fidelity"] for row in told["budgets"]] == [None, None]


def test_the_default_metric_is_named(capsys, run, monkeypatch):
    monkeypatch.delenv("FLEXIVID_I3D", raising=False)
    lines = evaluate(capsys, "--num-videos", 4, "--dry-run")
    assert any(line.startswith("metric fvd[motion]4_4f") for line in lines)
    assert any("motion" in line and "i3d" in line.lower() and "--download" in line for line in lines)


def test_two_folders(capsys, write_videos):
    write_videos("made", 6, 9, seed=1)
    write_videos("real", 8, 4, seed=2)
    words = ["--generated", "made", "--reference", "real", "--num-frames", 4, "--metric", "motion", "--json"]
    lines = evaluate(capsys, *words)
    assert lines[0] == "generated made (all): 12 of 12 clips of 6 videos"
    assert lines[1] == "reference real (all): 8 of 8 clips of 8 videos"
    told = json.loads(lines[-1])
    assert told["metric"] == "fvd[motion]12_4f"
    assert (told["scores"]["num_generated"], told["scores"]["num_real"]) == (12, 8)
    assert "data:image/webp" in Path(told["files"]["page"]).read_text()
    swapped = ["--generated", "real", "--reference", "made", *words[4:]]
    again = json.loads(evaluate(capsys, *swapped)[-1])
    assert again["scores"]["fvd"] == pytest.approx(told["scores"]["fvd"], rel=1e-6)


def test_the_grid_among_samples_is_left_out(capsys, write_videos):
    folder = write_videos("samples", 6, 4)
    write_video(folder / "grid.mp4", np.zeros((4, 32, 64, 3), np.uint8), 8)
    lines = [{"file": f"{number}.mp4", "plan": "2x1x2x2"} for number in (*range(4), 9)]  # 9 was deleted
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--generated", "samples", "--reference", "real", "--num-frames", 4, "--metric", "motion", "--json"]
    write_videos("real", 4, 4, seed=2)
    lines = evaluate(capsys, *words)
    assert lines[0] == "generated samples (all): 4 of 4 clips of 4 videos"
    (folder / "manifest.jsonl").write_text('{"file": "0.mp4"}\n')  # not one of ``flexivid.sample``
    assert "got videos of 2 sizes in samples (16x16, 32x64); expected one" in refused(capsys, *words)


def test_two_folders_of_pictures(capsys, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("samples", "photos"):
        (tmp_path / name).mkdir()
        for number in range(6):
            write_picture(tmp_path / name / f"{number}.png", rng.integers(0, 256, (16, 16, 3), np.uint8))
    write_picture(tmp_path / "samples" / "grid.png", np.zeros((32, 64, 3), np.uint8))
    lines = [{"file": f"{number}.png", "plan": "2x1x2x2", "budget": 0.5 + number % 2 / 2} for number in range(6)]
    (tmp_path / "samples" / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--generated", "samples", "--reference", "photos", "--num-frames", 1, "--metric", "motion", "--json"]
    with pytest.warns(UserWarning, match=r"got samples of budgets 0.5, 1 in samples; expected one"):
        lines = evaluate(capsys, *words)
    assert lines[:2] == [
        f"{side} (all): 6 of 6 clips of 6 videos" for side in ("generated samples", "reference photos")
    ]
    assert json.loads(lines[-1])["metric"] == "fvd[motion-still]6_1f"


def test_a_folder_is_at_no_distance_from_itself(capsys, write_videos):
    write_videos("made", 6, 4)
    words = ["--generated", "made", "--reference", "made", "--num-frames", 4, "--metric", "motion", "--json"]
    assert json.loads(evaluate(capsys, *words)[-1])["scores"]["fvd"] == pytest.approx(0, abs=1e-6)


def test_an_evaluation_lists_each_folder_of_its_reference_once(capsys, run, monkeypatch):
    listed = Counter()

    def counting(lists):
        def counted(path="."):
            if not isinstance(path, int):  # an open folder
                listed[os.path.relpath(path, "videos")] += 1
            return lists(path)

        return counted

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    evaluate(capsys, *QUICK, "--budgets", 1)
    assert listed["."] == 1
    listed.clear()
    evaluate(capsys, "--generated", "videos", "--reference", "videos", "--num-frames", 4, "--metric", "motion")
    assert listed["."] == 1


def test_a_second_result_is_held_against_the_first(capsys, run):
    words = (*QUICK, "--budgets", 1, 0.5, "--no-rivals", "--json")
    first = json.loads(evaluate(capsys, *words)[-1])
    scale_weights(run / "model.safetensors", 1.5)  # another model, the same protocol
    file = run / "evaluation" / "evaluation.json"  # which the second call replaces
    lines = evaluate(capsys, *words, "--against", file)
    second = json.loads(lines[-1])
    assert second["against"]["file"] == str(file)
    assert list(second["against"]["differences"]) == ["1", "0.5"]
    for before, now in zip(first["budgets"], second["budgets"], strict=True):
        difference = second["against"]["differences"][f"{now['budget']:g}"]
        assert difference["difference"] == pytest.approx(now["scores"]["fvd"] - before["scores"]["fvd"])
        assert difference["low"] < difference["difference"] < difference["high"]
    assert f"against {file}:" in lines
    assert "against" not in json.loads(file.read_text())


def scale_weights(file, factor):
    from safetensors.torch import load_file, save_file

    save_file({name: factor * tensor for name, tensor in load_file(file).items()}, file)


def test_another_protocol_is_refused_before_any_work(capsys, run):
    evaluate(capsys, *QUICK, "--budgets", 1)
    file = run / "evaluation" / "evaluation.json"
    words = ("--against", file, "--output-dir", "other", "--budgets")
    message = refused(capsys, *QUICK, *words, 1, "--seed", 1)
    assert "got results of different protocols (seed 0 and 1); expected one" in message
    assert "sampling " in refused(capsys, *QUICK, *words, 1, "--num-inference-steps", 3)
    assert "expected a budget in common" in refused(capsys, *QUICK, *words, 0.5)
    (run / "evaluation" / "page.json").write_text("[1]")
    assert "which holds no evaluation" in refused(capsys, *QUICK, "--against", run / "evaluation" / "page.json")
    assert "which is no file" in refused(capsys, *QUICK, "--against", "nowhere.json")
    assert not Path("other").exists()


def test_two_folders_are_held_against_an_earlier_result(capsys, write_videos):
    for seed, name in enumerate(("made", "better", "real")):
        write_videos(name, 6, 4, seed=seed)
    words = ["--reference", "real", "--num-frames", 4, "--metric", "motion", "--json", "--output-dir"]
    first = json.loads(evaluate(capsys, "--generated", "made", *words, "one")[-1])
    more = (*words, "two", "--against", "one/evaluation.json")
    second = json.loads(evaluate(capsys, "--generated", "better", *more)[-1])
    (difference,) = second["against"]["differences"].values()
    assert difference["difference"] == pytest.approx(second["scores"]["fvd"] - first["scores"]["fvd"])
    assert "seed 0 and 1" in refused(capsys, "--generated", "better", *more, "--seed", 1)


def test_a_training_evaluates_alike(run):
    """Blocks in memory, gathered by the ranks of a process group, give what blocks in files give."""
    request = Request(str(run), "out", (1.0, 0.5), num_videos=6, sampling={"batch_size": 2})
    job = prepare(request, torch.device("cpu"))
    work(job)
    from_files, _ = finish(job)

    def together(**options):
        real = ClipFeatures(job.task.extractor, job.real.clips, batch_size=2)
        return evaluate_together(job_of(job.task, real), Ranks(0, 1), **options)

    in_memory, samples = together()
    assert without_seconds(in_memory) == without_seconds(from_files)
    assert sum(len(block.indices) for block in samples) == 6 * len(job.task.plans)
    fewer, samples = together(afford=lambda seconds: 4)
    work(few := prepare(replace(request, num_videos=4, num_reference=6), torch.device("cpu")))
    assert without_seconds(fewer) == without_seconds(finish(few)[0])
    assert fewer.metric == "fvd[motion]4_4f"


def without_seconds(evaluation):
    plain = evaluation.to_json()
    for row in plain["budgets"]:
        for part in filter(None, (row, row["rival"])):
            part.pop("seconds")
    return plain


WRONG = {
    "missing checkpoint": (["--ckpt", "nowhere"], "got checkpoint nowhere, which does not exist"),
    "budget 0": (["--budgets", 0], "got budget 0.0; expected a fraction in (0, 1]"),
    "budget as word": (["--budgets", "half"], "got budget 'half'; expected a fraction"),
    "same budgets": (["--budgets", 0.5, 0.5], "got plans of budgets 0.5, 0.5; expected no two alike"),
    "too few videos": (["--num-videos", 1], "got 1 videos; expected at least 2"),
    "three frames": (["--num-frames", 3, "--budgets", 1], "got videos of 3 frames; expected at least"),
    "too many frames": (["--num-frames", 40], "expected at least 40"),
    "metric": (["--metric", "fid"], "fid"),
    "weights": (["--metric", "i3d", "--weights", "nowhere.pt"], "nowhere.pt"),
    "reference": (["--reference", "nowhere"], "got nowhere, which does not exist"),
    "empty reference": (["--reference", "empty"], "got empty, which holds 0 other files and no video"),
    "broken reference": (["--reference", "broken"], "got 0 clips from broken: all 2 videos fail to decode"),
    "split": (["--split", "test"], "got --split test; expected train, val or all"),
    "rates": (["--stride", 2, "--fps", 4], "got --stride 2 and --fps 4; expected one; leave"),
    "device": (["--device", "cuda:99"], "got device 'cuda:99', which is not available"),
    "devices": (["--devices", 0], "got 0 devices"),
    "misspelt flag": (["--bugdets", 0.5], "did you mean '--budget'?"),
    "two things": (["--generated", "videos", "--ckpt", "runs"], "got --generated and --checkpoint; expected one"),
    "no reference": (["--generated", "videos"], "got --generated without --reference; expected two folders"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_each_mistake_is_one_line(capsys, run, tmp_path, kind):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for name in "ab":
        (tmp_path / "broken" / f"{name}.mp4").write_bytes(b"no video at all")
    words, message = WRONG[kind]
    assert message in refused(capsys, *QUICK, *words)
    assert not (run / "evaluation").exists()


def test_samples_that_are_not_finite_are_told(capsys, run):
    from safetensors.torch import load_file, save_file

    weights = load_file(run / "model.safetensors")
    for value, told in ((1e30, "in sample 0 at budget 1"), (torch.nan, "in weight ")):  # the first overflows in use
        filled = {name: torch.full_like(tensor, value) for name, tensor in weights.items()}
        save_file(filled, run / "model.safetensors")
        assert f"got values that are not finite {told}" in refused(capsys, *QUICK)


def test_different_frame_counts_are_no_matter_but_short_videos_are_told(capsys, write_videos):
    write_videos("made", 4, 6)
    write_videos("real", 4, 5)
    assert "has 6 frames; expected at least 16" in refused(capsys, "--generated", "made", "--reference", "real", *QUICK)


@pytest.mark.slow
def test_two_processes_give_the_same_result(capsys, run):
    one = json.loads(evaluate(capsys, *QUICK, "--json", "--device", "cpu", "--output-dir", "one")[-1])
    command = [sys.executable, "-m", "flexivid.evaluate", *map(str, QUICK), "--json", "--device", "cpu"]
    command += ["--devices", "2", "--output-dir", "two"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    two = json.loads(done.stdout.splitlines()[-1])
    assert two["protocol"] == one["protocol"]
    for first, second in zip(one["budgets"], two["budgets"], strict=True):
        assert second["scores"] == first["scores"]
        assert second["fidelity"] == first["fidelity"]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(run, tmp_path):
    command = [sys.executable, "-m", "flexivid.evaluate", "--num-videos", "4000", "--batch-size", "1"]
    command += ["--metric", "motion", "--num-reference", "8"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell hands down a deaf ear
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    program = subprocess.Popen(command, text=True, preexec_fn=heard, **pipes)
    limit = time.monotonic() + 240
    while len(list(run.rglob("features/*/*"))) < 16 and program.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    os.kill(program.pid, signal.SIGINT)
    _, error = program.communicate(timeout=120)
    assert program.returncode == 130
    assert "Traceback" not in error
    assert "interrupted: what is finished is kept in runs/tiny/version_0/evaluation/features; the same command" in error
    assert len(list(run.rglob("features/*/*.safetensors"))) >= 15
    assert not list(run.rglob("*.part"))
