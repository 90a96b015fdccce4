"""The data program: faults decide the exit status, the preview shows the clips of training, mistakes are one line."""

import json
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from flexivid.data.inspection.recipe import data_module_of
from flexivid.dataset import main


def write(path, num_frames, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for i in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), level + 5 * i, np.uint8))))
        container.mux(stream.encode())


@pytest.fixture
def videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path / "cache"))
    for i in range(4):
        write(tmp_path / "videos" / "ab"[i % 2] / f"{i}.mp4", 20, level=20 * i)
    return tmp_path / "videos"


def status(*words):
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    return stop.value.code


def test_help_loads_no_torch():
    code = (
        "import sys; from flexivid import dataset; dataset.build_parser().format_help(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_check_names_every_fault_and_lists_the_rest(videos, tmp_path, capsys):
    assert status("check", videos) == 0
    (videos / "a" / "bad.mp4").write_bytes(b"nothing")
    (videos / "b" / "copy.mp4").write_bytes((videos / "a" / "0.mp4").read_bytes())
    write(videos / "b" / "short.mp4", 3)
    assert status("check", videos, "--full", "--json", "c.json", "--fix-manifest", "good.jsonl") == 1
    report = json.loads((tmp_path / "c.json").read_text())["train"]
    assert report["num_faults"] == {"bad": 1, "too short": 1, "duplicate": 1}
    assert report["classes"] == {"a": 2, "b": 4}
    assert len((tmp_path / "good.jsonl").read_text().splitlines()) == 4
    assert status("check", "good.jsonl") == 0


def test_preview_shows_the_first_clips_of_training(videos, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(f"data: {{root: {videos}, num_frames: 4, size: 32, batch_size: 2}}\nmodel: {{}}\n")
    main(["preview", "--config", "r.yaml", "--num", "3"])
    assert "<figure>" in (tmp_path / "preview" / "clips.html").read_text()
    sheet = np.asarray(Image.open(tmp_path / "preview" / "clips.png"))
    data = data_module_of(["r.yaml"], None, {})
    data.setup()
    batch = next(iter(data.train_dataloader()))["video"]
    data.teardown()
    assert sheet[8 + 22, 8].tolist() == batch[0, :, 0, 0, 0].tolist()


def test_preview_takes_the_seed_of_training(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("seed_everything: 3\ndata: {root: videos}\n")
    assert data_module_of([str(file)], None, {}).settings.seed == 3
    assert data_module_of([str(file)], None, {"seed": 5}).settings.seed == 5


@pytest.mark.parametrize("words", [["check", "nowhere"], ["check", "v", "--sise", "3"], ["check", "--num-frames", "0"]])
def test_a_mistake_is_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert status(*words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: got ")
    assert "; expected " in error


def test_a_misspelt_key_of_a_recipe_names_the_nearest(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text("data: {root: v, num_frmes: 4}\n")
    assert status("preview", "--config", tmp_path / "r.yaml") == 2
    assert "num_frames" in capsys.readouterr().err


def test_check_reads_a_home_and_tells_what_is_not_used(videos, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(videos.parent))
    (videos / "c").mkdir()
    (videos / "c" / "captions.csv").touch()
    assert status("check", "~/videos", "--json=~/out/check.json") == 0
    [note] = json.loads((videos.parent / "out" / "check.json").read_text())["train"]["notes"]
    assert "1 list beside the videos" in note
    printed = capsys.readouterr()
    assert "c/captions.csv" in "".join(printed.out.replace("│", "").split())
    assert "Warning" not in printed.err  # said once
    assert status("check", "") == 2
    assert "got an empty path" in capsys.readouterr().err


def test_layout_is_an_option_of_every_verb_and_a_setting_of_recipes(videos, capsys):
    write(videos / "train" / "5.mp4", 20, level=100)
    for words in (["check"], ["index"], ["stats"], ["preview"]):
        assert status(*words, videos) == 2
        assert "expected one of two readings" in capsys.readouterr().err
    assert status("check", videos, "--layout", "classes", "--json", "check.json") == 0
    assert json.loads((videos.parent / "check.json").read_text())["train"]["classes"] == {"a": 2, "b": 2, "train": 1}
    (videos.parent / "recipe.yaml").write_text(f"data: {{root: {videos}, layout: splits}}")
    assert status("check", "--config", "recipe.yaml", "--json", "check.json") == 0
    report = json.loads((videos.parent / "check.json").read_text())["train"]
    assert report["num_videos"] == 1
    assert "a/ (2 videos), b/ (2 videos) beside the parts" in report["notes"][0]
    main(["index", str(videos), "--layout", "flat"])
    assert "train: 5 videos" in capsys.readouterr().out
