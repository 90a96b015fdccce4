"""Each fault is named once with its reason, and the manifest holds the rest."""

import csv
import json

import numpy as np
import pytest
from pyarrow import parquet

from flexivid.data.clips.windows import ClipSettings
from flexivid.data.index.videos import Videos
from flexivid.data.inspection.duplicates import find_duplicates
from flexivid.data.inspection.report import Fault, repeats, survey, too_short, write_manifest
from flexivid.data.sources.manifest import read_manifests

from .listed import items, scan


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


def labelled(root, names):
    """A folder of class folders as an index has it, and its classes."""
    for i, name in enumerate(names):
        (root / name).mkdir(parents=True)
        (root / name / f"{i}.mp4").touch()
    manifest = scan(root)
    return Videos.of([str(item.path) for item in items(manifest)], label=manifest.table["label"].to_pylist()), manifest


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("names", [("1", "2", "10"), ("007", "0"), ("9", "10", "a"), ("wind", "waves")])
def test_a_manifest_written_from_folders_reads_back_the_same_classes(tmp_path, names, ending):
    videos, manifest = labelled(tmp_path / "v", names)
    file = tmp_path / f"l.{ending}"
    write_manifest(file, videos, class_names=manifest.class_names)
    again = read_manifests(file).train
    assert again.class_names == manifest.class_names
    assert [item[:2] for item in items(again)] == [item[:2] for item in items(manifest)]


def test_classes_that_a_list_would_take_for_other_numbers_are_refused(tmp_path):
    videos, manifest = labelled(tmp_path / "v", ("20240101", "20231231"))
    with pytest.raises(
        ValueError, match=r"got classes named 20231231, 20240101, which a list takes for numbers; expected"
    ):
        write_manifest(tmp_path / "l.csv", videos, class_names=manifest.class_names)
    assert not (tmp_path / "l.csv").exists()
