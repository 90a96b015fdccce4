"""The recipes, against a server on this machine: fetch, resume, unpack, list; the room reads what they list."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flexivid.data import open_video
from flexivid.data.sources.manifest import read_manifests
from flexivid.data.storage.dataset_script import write_manifest

from .listed import items
from .serving import serve

RECIPES = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture
def site():
    with serve({}) as site:
        yield site


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path.read_bytes()


def listing(output):
    return (output / "manifest.csv").read_text().split()


@pytest.fixture
def ucf101(site, tmp_path):
    names = {"train": ["Archery/v_Archery_g08_c01.avi", "Surf/v_Surf_g08_c01.avi", "Surf/v_Surf_g09_c01.avi"]}
    names["test"] = ["Archery/v_Archery_g01_c01.avi"]
    lists = {"ucfTrainTestlist/classInd.txt": "1 Archery\r\n2 Surf\r\n"}
    for split, rows in names.items():
        lists[f"ucfTrainTestlist/{split}list01.txt"] = "".join(f"{row} 1\r\n" for row in rows)
    videos = {f"UCF-101/{name}": name for rows in names.values() for name in rows}
    site.files = {"videos": zipped(tmp_path / "v.zip", videos), "lists": zipped(tmp_path / "l.zip", lists)}
    flags = ["--output", str(tmp_path / "ucf"), "--quiet"]
    return [*flags, "--url", f"{site.url}/videos", "--lists-url", f"{site.url}/lists"]


def test_ucf101(load_script, site, ucf101, tmp_path):
    recipe = load_script("data/ucf101.py")
    assert recipe.main(ucf101) == 0
    assert listing(tmp_path / "ucf")[:2] == [
        "path,class,split",
        "videos/UCF-101/Archery/v_Archery_g08_c01.avi,Archery,train",
    ]
    train, held_out, _ = read_manifests(tmp_path / "ucf" / "manifest.csv")
    assert (train.class_names, [item.label for item in items(train)]) == (("Archery", "Surf"), [0, 1, 1])
    assert [(item.label, Path(item.path).read_text()) for item in items(held_out)] == [
        (0, "Archery/v_Archery_g01_c01.avi")
    ]
    asked = len(site.requests)
    assert recipe.main([*ucf101, "--limit", "1"]) == 0  # nothing is fetched twice
    assert (len(site.requests), len(listing(tmp_path / "ucf"))) == (asked, 3)


def test_ucf101_goes_on_after_an_interruption(load_script, site, ucf101, tmp_path, capsys, monkeypatch):
    recipe = load_script("data/ucf101.py")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    site.statuses = [200, *[503] * 6]
    assert recipe.main(ucf101) == 2
    assert "got status 503" in capsys.readouterr().err
    assert not (tmp_path / "ucf" / "manifest.csv").exists()
    assert recipe.main(ucf101) == 0
    assert len(site.requests) == 8  # the lists once


def test_ucf101_refuses_what_is_damaged_or_incomplete(load_script, site, ucf101, tmp_path, capsys):
    recipe = load_script("data/ucf101.py")
    assert recipe.main([*ucf101, "--checksum", "sha256:" + "0" * 64]) == 2
    assert "with sha256" in capsys.readouterr().err
    good = "sha256:" + hashlib.sha256(site.files["videos"]).hexdigest()
    assert recipe.main([*ucf101, "--checksum", good]) == 0
    next((tmp_path / "ucf" / "videos").rglob("*g09*")).unlink()
    assert recipe.main(ucf101) == 2
    assert "v_Surf_g09_c01.avi on" in capsys.readouterr().err
    assert recipe.main(["--output", str(tmp_path / "other"), "--archive", "gone.rar", "--lists", "gone.zip"]) == 2
    assert "got --archive gone.zip" in capsys.readouterr().err


def test_sky_timelapse(load_script, site, tmp_path):
    files = {f"sky/sky_train/x/x_{clip}/f_{i:08d}.jpg": "-" for clip, n in (("1", 5), ("2", 2)) for i in range(n)}
    files |= {f"sky/sky_test/y/y_1/f_{i:08d}.jpg": "-" for i in range(4)}
    site.files = {"sky": zipped(tmp_path / "sky.zip", files)}
    output = tmp_path / "out"
    flags = ["--output", str(output), "--url", f"{site.url}/sky", "--min-frames", "3", "--quiet"]
    assert load_script("data/sky_timelapse.py").main(flags) == 0
    rows = ["videos/sky/sky_train/x/x_1,,train", "videos/sky/sky_test/y/y_1,,test"]
    assert listing(output) == ["path,class,split", *rows]
    train, held_out, _ = read_manifests(output / "manifest.csv")
    assert [len(train), len(held_out)] == [1, 1]
    site.content_type = "text/html"  # as Google Drive answers when it refuses
    assert load_script("data/sky_timelapse.py").main([*flags[2:], "--output", str(tmp_path / "refused")]) == 2


@pytest.fixture
def taichi(site, make_video, tmp_path):
    """A list of two clips of one video, 64x48 in the list and 128x96 in fact, and one of a video that is gone."""
    lines = ["video_id,start,end,bbox,fps,width,height,partition"]
    lines += ["here#1,4,8,16-8-48-40,10,64,48,train", "here#1,0,2,0-0-32-32,10,64,48,train"]
    lines += ["gone,0,2,0-0-32-32,10,64,48,test"]
    site.files = {"list.csv": "\n".join(lines).encode()}
    make_video(tmp_path / "whole" / "here.mp4", 24, size=(96, 128), fps=20)
    flags = ["--output", str(tmp_path / "out"), "--videos", str(tmp_path / "whole"), "--size", "32", "--quiet"]
    return [*flags, "--url", f"{site.url}/list.csv"]


def test_taichi_cuts_by_time_and_box(load_script, taichi, tmp_path):
    recipe = load_script("data/taichi.py")
    assert recipe.main(taichi) == 0
    assert listing(tmp_path / "out")[1:] == [
        "train/here#000000#000002.mp4,,train",
        "train/here#000004#000008.mp4,,train",
    ]
    with open_video(tmp_path / "out" / "train" / "here#000004#000008.mp4") as reader:
        frames = reader.frames(range(reader.num_frames))
    assert frames.shape == (8, 32, 32, 3)  # 4 frames at 10 a second are 8 at 20
    assert np.abs(frames.mean(axis=(1, 2, 3)) - (80 + 10 * np.arange(8))).max() < 3
    assert "gone.mp4" in (tmp_path / "out" / "missing.txt").read_text()


def test_taichi_takes_up_what_was_missing(load_script, taichi, tmp_path, make_video):
    recipe = load_script("data/taichi.py")
    assert recipe.main(taichi) == 0
    before = (tmp_path / "out" / "train" / "here#000000#000002.mp4").stat().st_mtime_ns
    make_video(tmp_path / "whole" / "gone.mp4", 24, size=(96, 128), fps=20)
    assert recipe.main(taichi) == 0
    assert len(listing(tmp_path / "out")) == 4
    assert (tmp_path / "out" / "missing.txt").read_text() == ""
    assert (tmp_path / "out" / "train" / "here#000000#000002.mp4").stat().st_mtime_ns == before


def test_taichi_crops_the_box_of_the_list(load_script, tmp_path):
    recipe = load_script("data/taichi.py")
    image = np.zeros((96, 128, 3), np.uint8)
    image[16:80, 32:96] = 200  # the box 16-8-48-40 of a list that has half the size
    clip = recipe.Clip("a", 0, 1, (16, 8, 48, 40), 10.0, (48, 64), "train")
    assert (recipe._square(image, clip, 32) == 200).all()


def test_taichi_without_partitions_parts_by_video_and_says_what_it_lacks(load_script, tmp_path, capsys, monkeypatch):
    recipe = load_script("data/taichi.py")
    lines = [f"v{i},{start},{start + 9},0-0-9-9,25,64,48" for i in range(400) for start in (0, 10)]
    (tmp_path / "list.csv").write_text("video_id,start,end,bbox,fps,width,height\n" + "\n".join(lines))
    clips = recipe.read_clips(tmp_path / "list.csv")
    splits = {split: {clip.video for clip in clips if clip.split == split} for split in ("train", "test")}
    assert not splits["train"] & splits["test"]
    assert 8 < len(splits["test"]) < 40
    (tmp_path / "bad.csv").write_text("video_id,start\n")
    assert recipe.main(["--output", str(tmp_path / "out"), "--metadata", str(tmp_path / "bad.csv")]) == 2
    assert "without bbox, end, fps" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert recipe.main(["--output", str(tmp_path / "out"), "--fetch"]) == 2
    assert "pip install yt-dlp" in capsys.readouterr().err


def test_a_limit_keeps_the_shares_of_the_classes(tmp_path):
    rows = [(f"{label}/{i}.mp4", label, "train") for label in "abcd" for i in range(25)]
    assert write_manifest(rows, tmp_path, limit=8) == {"train": 8}
    assert [line.split(",")[1] for line in listing(tmp_path)[1:]] == list("aabbccdd")
    with pytest.raises(ValueError, match="got no video"):
        write_manifest([], tmp_path)


@pytest.mark.parametrize("name", ["ucf101", "sky_timelapse", "taichi"])
def test_help(name):
    done = subprocess.run([sys.executable, str(RECIPES / f"{name}.py"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--output" in done.stdout
