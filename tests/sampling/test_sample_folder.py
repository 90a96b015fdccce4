"""A folder of samples: complete, described line by line, and whole after an interruption."""

import json

import av
import numpy as np
import pytest

from flexivid.media import write as video_io
from flexivid.media.write import to_frames
from flexivid.model.checkpoint import fingerprint
from flexivid.sampling import sample_folder
from flexivid.sampling.conditions import conditions_for
from flexivid.sampling.generate import generate
from flexivid.sampling.plan import plan_for, plan_of
from flexivid.sampling.sample_folder import Interrupted, file_name, prepare_folder, write_samples
from flexivid.sampling.settings import Sampling

KEYS = {
    *("file", "index", "seed", "label", "class", "budget"),
    *("plan", "macs", "seconds", "checkpoint", "sampling"),
}


def run(model, folder, *, budgets=(1.0, 0.5), num_videos=3, batch_size=2, seed=0, on_step=None):
    settings = Sampling(batch_size=batch_size, precision="fp32", planner="weak_first").filled(model)
    plans = [plan_for(model, settings, budget) for budget in budgets]
    conditions = conditions_for(model, num_videos)
    return write_samples(model, plans, folder, settings=settings, conditions=conditions, seed=seed, on_step=on_step)


def manifest(folder):
    return {line["file"]: line for line in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())}


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def stop_after(count):
    """An ``on_step`` that presses Ctrl-C at the given call of the network."""
    calls = []

    def on_step(plan):
        def step(samples, mode):
            calls.append(mode)
            if len(calls) == count:
                raise KeyboardInterrupt

        return step

    return on_step


def test_files_are_the_samples(model, tmp_path):
    outcomes = run(model, tmp_path, seed=7)
    for outcome in outcomes:
        made = generate(model, schedule=outcome.plan.schedule, num_videos=3, seed=7, precision="fp32")
        assert outcome.predicted_macs == outcome.measured_macs == made.measured_macs
        assert outcome.seconds > 0
        for i, file in enumerate(outcome.files):
            errors = [np.abs(frames_of(file).astype(int) - to_frames(video)).mean() for video in made.videos]
            assert int(np.argmin(errors)) == i  # noisy pixels: 4:2:0 halves their colours
    names = {file.name for file in tmp_path.iterdir()}
    listed = {file_name(i, 7, budget) for i in range(3) for budget in (1.0, 0.5)}
    assert names == listed | {"manifest.jsonl", "grid.mp4", "grid.png"}


def test_manifest_tells_all(model, tmp_path):
    outcomes = run(model, tmp_path, seed=7)
    lines = manifest(tmp_path)
    assert set(lines) == {file.name for outcome in outcomes for file in outcome.files}
    for line in lines.values():
        assert set(line) == KEYS
        assert (line["seed"], line["label"]) == (7 + line["index"], line["index"])
        assert line["class"] == model.recipe.class_names[line["label"]]
        assert line["checkpoint"] == fingerprint(model)
        assert line["sampling"]["num_inference_steps"] == 4
        assert line["seconds"] > 0
    half = lines["000002_seed9_b0.5.mp4"]
    assert (half["budget"], half["plan"]) == (0.5, "3x2x4x4,1x1x2x2")
    assert 3 * half["macs"] == outcomes[1].measured_macs


def test_model_without_classes(build_model, tmp_path):
    run(build_model(num_classes=0), tmp_path, budgets=[1.0], num_videos=1)
    line = manifest(tmp_path)["000000_seed0_b1.mp4"]
    assert (line["label"], line["class"]) == (None, None)


def test_rerun_replaces_its_lines_and_keeps_the_others(model, build_model, tmp_path):
    run(model, tmp_path)
    first, other = manifest(tmp_path), build_model(depth=1)
    run(other, tmp_path, budgets=[0.5])
    second = manifest(tmp_path)
    assert second.keys() == first.keys()
    for name, line in second.items():
        assert line["checkpoint"] == fingerprint(other if name.endswith("b0.5.mp4") else model)
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == len(second)


def test_same_files_whatever_the_batch_size(model, tmp_path):
    for size in (1, 3):
        run(model, prepare_folder(tmp_path / str(size)), batch_size=size, budgets=[1.0])
    for i in range(3):
        one, three = (frames_of(tmp_path / size / file_name(i, 0, 1.0)).astype(int) for size in "13")
        assert np.abs(one - three).max() <= 4  # a level may be rounded the other way before it is encoded


@pytest.mark.parametrize(("calls", "finished"), [(1, 0), (6, 2), (8, 2), (9, 3), (12, 3), (13, 3)])
def test_interrupted_run_keeps_what_is_finished(model, tmp_path, calls, finished):
    wanted = [file_name(i, 0, budget) for budget in (1.0, 0.5) for i in range(3)]
    with pytest.raises(Interrupted) as stop:
        run(model, tmp_path, on_step=stop_after(calls))
    there = sorted(file.name for file in tmp_path.glob("*.mp4"))
    assert there == sorted(wanted[:finished])
    assert set(manifest(tmp_path)) == set(there)
    assert all(frames_of(tmp_path / name).shape == (4, 8, 8, 3) for name in there)
    assert f"{finished} of 6 files are finished in {tmp_path}; missing: {', '.join(wanted[finished:])}" in str(
        stop.value
    )
    assert not list(tmp_path.glob("*.part"))


def test_interrupted_while_writing(model, tmp_path, monkeypatch):
    real, written = sample_folder.write_video, []

    def write(path, frames, fps):
        written.append(path)
        if len(written) == 2:
            monkeypatch.setattr(video_io.np, "ascontiguousarray", interrupt)
        return real(path, frames, fps)

    def interrupt(frame):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample_folder, "write_video", write)
    with pytest.raises(Interrupted, match=r"1 of 3 files are finished in .*; missing: 000001_.*, 000002_"):
        run(model, tmp_path, budgets=[1.0], batch_size=3)
    assert {file.name for file in tmp_path.iterdir()} == {"000000_seed0_b1.mp4", "manifest.jsonl"}
    assert set(manifest(tmp_path)) == {"000000_seed0_b1.mp4"}


def test_files_of_an_earlier_run_do_not_count_as_finished(model, tmp_path):
    run(model, tmp_path)
    with pytest.raises(Interrupted, match="2 of 6 files are finished"):
        run(model, tmp_path, on_step=stop_after(5))
    assert len(manifest(tmp_path)) == 6


def test_long_lists_are_cut(model, tmp_path):
    with pytest.raises(Interrupted, match=r"missing: 000000_seed0_b1.mp4, .*, 000009_seed9_b1.mp4 and 5 more$"):
        run(model, tmp_path, budgets=[1.0], num_videos=15, on_step=stop_after(1))


def test_plan_without_a_budget_is_named_by_its_own(model):
    settings = Sampling().filled(model)
    half = plan_for(model, settings, 0.5).schedule
    assert plan_of(half, model, settings, 0.5).budget == 0.5
    assert 0 < plan_of(half, model, settings).budget < 0.5
    assert plan_of(plan_for(model, settings, 1.0).schedule, model, settings).budget == 1.0


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"got output folder .*, which cannot be written \(Not a directory\); expected a"):
        prepare_folder(tmp_path / "file" / "below")
    assert prepare_folder(tmp_path / "new" / "deep").is_dir()
    assert not list((tmp_path / "new" / "deep").iterdir())
