"""Each fault is named once with its reason, and the manifest holds the rest."""

import csv
import json

import numpy as np
import pytest
from pyarrow import parquet

from flexivid.data.clips import ClipSettings
from flexivid.data.duplicates import find_duplicates
from flexivid.data.report import Fault, repeats, survey, too_short, write_manifest
from flexivid.data.videos import Videos


def test_files_differ_in_one_byte_that_no_sample_sees(tmp_path):
    content = bytearray(1 << 20)
    for name, byte in {"a": 0, "b": 1, "c": 0}.items():
        content[200_000] = byte
        (tmp_path / name).write_bytes(content)
    groups = find_duplicates([tmp_path / name for name in "abc"])
    assert groups == ((str(tmp_path / "a"), str(tmp_path / "c")),)
    assert [fault.path for fault in repeats(groups)] == [str(tmp_path / "c")]


def test_hidden_files_beside_pictures_make_no_difference(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"x")
        (tmp_path / name / "._1.png").write_text(name)
    assert len(find_duplicates([tmp_path / "a", tmp_path / "b"])) == 1


def test_one_path_with_two_captions_is_no_duplicate(tmp_path):
    (tmp_path / "a").write_text("x")
    assert find_duplicates([tmp_path / "a", tmp_path / "a"]) == ()


def test_too_short_counts_with_the_rate():
    videos = Videos.of(["a.mp4"], num_frames=16, fps=32.0)
    assert too_short(videos, [0], ClipSettings(8, fps=8.0))[0].reason == "has 16 of the 29 frames that a clip spans"


def test_a_collection_with_a_fault_is_not_clean():
    videos = Videos.of(["a.mp4", "b.mp4"], num_frames=8, label=[0, 1])
    clean = survey(videos, np.array([1, 1]), class_names=("x", "y"))
    assert clean.is_clean
    assert clean.classes == {"x": 1, "y": 1}
    assert not clean._replace(faults=(Fault("a.mp4", "bad", "why"),)).is_clean
    assert json.loads(json.dumps(clean.to_json()))["num_clips"] == 2


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_manifest_keeps_path_caption_and_class(tmp_path, ending):
    paths = [str(tmp_path / "v" / "a,1.mp4"), "/elsewhere/b.mp4", "s3://bucket/c.mp4", "bad.mp4"]
    videos = Videos.of(paths, caption=["one, two", "", "three", ""], label=[1, 0, 1, 0])
    file = tmp_path / f"good.{ending}"
    assert write_manifest(file, videos, class_names=("x", "y"), leave_out=["bad.mp4"]) == 3
    if ending == "csv":
        rows = list(csv.DictReader(file.open()))
    elif ending == "jsonl":
        rows = [json.loads(line) for line in file.open()]
    else:
        rows = parquet.read_table(file).to_pylist()
    assert [row["path"] for row in rows] == ["v/a,1.mp4", "/elsewhere/b.mp4", "s3://bucket/c.mp4"]
    assert [row["text"] for row in rows] == ["one, two", "", "three"]
    assert [row["label"] for row in rows] == ["y", "x", "y"]
