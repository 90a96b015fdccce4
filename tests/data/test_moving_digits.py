"""The set is the same to the byte whoever makes it, balanced, legible, and its splits share no scan."""

import doctest
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from flexivid.data import open_video

SCRIPT = Path(__file__).resolve().parents[2] / "data" / "moving_digits.py"


@pytest.fixture(scope="module")
def digits(load_script):
    return load_script("data/moving_digits.py")


def digest(folder):
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.*")}


def command(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)


def test_examples(digits):
    assert doctest.testmod(digits).failed == 0


def test_decord_and_pyav_show_the_same_pixels(digits, tmp_path):
    digits.make(tmp_path / "set", digits.Recipe(num_clips=20, num_held_out=10), workers=1)
    paths = sorted((tmp_path / "set").rglob("*.mp4"))
    assert len(paths) == 30
    for path in paths:
        with open_video(path, decoder="decord") as fast, open_video(path) as exact:
            assert np.array_equal(fast.read(), exact.read())


def test_bytes_do_not_depend_on_workers_or_run(digits, tmp_path):
    recipe = digits.Recipe(num_clips=60, num_held_out=20)
    digits.make(tmp_path / "one", recipe, workers=1)
    done = command("--output", tmp_path / "three", "--num-clips", 60, "--num-held-out", 20, "--workers", 3)
    assert done.returncode == 0, done.stderr
    assert len(digest(tmp_path / "one")) == 81
    assert digest(tmp_path / "one") == digest(tmp_path / "three")
    digits.make(tmp_path / "other", recipe._replace(seed=1))
    assert not set(digest(tmp_path / "one").values()) & set(digest(tmp_path / "other").values())
    assert [len(list((tmp_path / "one" / "train" / str(label)).iterdir())) for label in range(10)] == [6] * 10


def test_second_run_does_nothing_and_another_recipe_is_refused(tmp_path):
    few = ("--output", tmp_path / "d", "--num-clips", 10, "--num-held-out", 0, "--num-frames", 2, "--workers", 1)
    assert command(*few).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*")}
    again = command(*few)
    assert again.returncode == 0
    assert "already made" in again.stderr
    refused = command(*few, "--seed", 5)
    assert refused.returncode == 2
    assert "got other arguments" in refused.stderr
    assert "(there: seed 0)" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*")}
    assert command(*few, "--seed", 5, "--overwrite").returncode == 0
    assert json.loads((tmp_path / "d" / "recipe.json").read_text())["seed"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["d"]  # nothing half made is left


def test_foreign_folder_is_never_replaced(digits, tmp_path):
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(FileExistsError, match="not made by this script"):
        digits.make(tmp_path, digits.Recipe(num_clips=0, num_held_out=0), overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "important"


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_share_no_scan(digits, seed):
    splits = digits.split_scans(seed)
    train, held_out = ({scan.tobytes() for scans in splits[name] for scan in scans} for name in ("train", "held_out"))
    assert len(train) + len(held_out) == 1797
    assert not train & held_out
    assert len(held_out) == pytest.approx(0.2 * 1797, abs=10)


def test_digits_are_white_on_black_and_keep_inside(digits):
    splits = digits.split_scans(0)
    for index in range(30):
        video = digits.render_clip(splits["train"], digits.Recipe(), split="train", index=index)
        ink = (video > 127).mean(axis=(1, 2))
        assert ink.min() > 0.03  # nothing leaves the frame
        assert ink.max() < 0.4
        assert np.median(video) == 0
        assert video.max() > 230
        assert not np.array_equal(video[0], video[-1])


def test_folder_made_before_there_was_variation_is_still_made(digits, tmp_path):
    recipe = digits.Recipe(num_clips=0, num_held_out=0)
    digits.make(tmp_path / "d", recipe)
    note = tmp_path / "d" / "recipe.json"
    sizes = {"size": 32, "num_frames": 16, "digit_size": 24}
    before = {"version": 2, "num_clips": 0, "num_held_out": 0, "seed": 0, **sizes}
    assert json.loads(note.read_text()) == before
    assert not digits.make(tmp_path / "d", recipe)
    with pytest.raises(FileExistsError, match="there: vary None"):
        digits.make(tmp_path / "d", recipe._replace(vary=True))
    digits.make(tmp_path / "varied", recipe._replace(vary=True))
    with pytest.raises(FileExistsError, match="there: vary True"):
        digits.make(tmp_path / "varied", recipe)


def test_variation_is_the_same_again_and_shows_one_scan_in_many_shapes(digits):
    scans = [classes[:2] for classes in digits.split_scans(0)["train"]]  # 20 scans
    varied = digits.Recipe(vary=True)
    videos = [digits.render_clip(scans, varied, split="train", index=index) for index in range(60)]
    again = digits.render_clip(scans, varied, split="train", index=59)
    assert np.array_equal(videos[59], again)
    shapes = set()
    for video in videos:
        rows, columns = np.nonzero(video[0] > 127)
        shapes.add((np.ptp(rows), np.ptp(columns), len(rows)))
        ink = (video > 127).mean(axis=(1, 2))
        assert ink.min() > 0.03
        assert ink.max() < 0.4
        assert video.max() > 230
    assert len(shapes) > 50


def test_bent_digit_keeps_its_ink_and_fills_its_box(digits):
    recipe = digits.Recipe()
    rng = np.random.default_rng(0)
    for scan in digits.split_scans(0)["train"][3][:20]:
        bent = digits.bend(scan, recipe, side=24, rng=rng)
        assert max(bent.shape) <= recipe.size
        for edge in (bent[0], bent[-1], bent[:, 0], bent[:, -1]):
            assert 0.02 < edge.max() < 0.9  # an edge of the box is an edge of the stroke: nothing is cut off
        assert 0.5 < bent.sum() / digits.enlarge(scan, 24).sum() < 2


def test_two_varied_digits_keep_apart(digits):
    scans = digits.split_scans(0)["train"]
    pairs = [index for index in range(300) if np.random.default_rng([0, 0, index]).random() < digits.PAIRS]
    ink = {}
    for vary in (False, True):
        videos = [digits.render_clip(scans, digits.Recipe(vary=vary), split="train", index=index) for index in pairs]
        totals = np.array([video.sum(axis=(1, 2), dtype=float) for video in videos])
        ink[vary] = totals.min(axis=1) / totals.max(axis=1)  # the ink of a clip is constant unless digits overlap
    assert len(pairs) > 20
    assert ink[True].min() > 0.9
    assert ink[False].min() < 0.7


def test_paths_are_straight_and_bounce(digits):
    path = digits.bounce(np.array([3.0, 0.5]), np.array([1.5, -0.25]), num_frames=40, room=12.0)
    assert path.min() >= 0
    assert path.max() <= 12
    steps = np.abs(np.diff(path, axis=0))
    assert np.isclose(steps, [1.5, 0.25]).mean() > 0.7  # the speed is kept but where a wall is met
    assert (steps <= np.array([1.5, 0.25]) + 1e-9).all()


def test_file_is_ordinary_h264(digits, tmp_path):
    video = digits.render_clip(digits.split_scans(0)["train"], digits.Recipe(), split="train", index=4)
    digits.encode(video, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 16)
        frames = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(stream)])
    assert frames.shape == video.shape
    decoded = np.clip((frames.astype(float) - 16) * 255 / 219, 0, 255)
    assert min(np.abs(decoded - video).mean(), np.abs(frames.astype(float) - video).mean()) < 3


@pytest.mark.parametrize("change", [{"size": 33}, {"digit_size": 40}, {"num_frames": 0}])
def test_refusals(digits, change):
    with pytest.raises(ValueError, match=r"got .*; expected"):
        digits.make(Path("nowhere"), digits.Recipe(**change))
