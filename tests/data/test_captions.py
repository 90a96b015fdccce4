"""Captions from where users keep them to batches: several of a video, one drawn a clip; none is lost or made up."""

import io
import json
import tarfile

import fsspec
import numpy as np
import pytest

from flexivid.data.clips.dataset import ClipDataset
from flexivid.data.clips.loader import described
from flexivid.data.clips.windows import ClipSettings
from flexivid.data.decoding.facts import Facts
from flexivid.data.index.build import build_index
from flexivid.data.index.videos import Videos
from flexivid.data.inspection.report import write_manifest
from flexivid.data.sources.manifest import LeftOutWarning, Manifest, read_manifests
from flexivid.data.sources.shard_writer import sources_of
from flexivid.data.sources.shards import shard_rows

from .listed import items, scan

SEVERAL = ["a dog", "a hound", "an animal"]


def packed(*captions):
    return "\0".join(captions)


@pytest.fixture
def dataset():
    videos = Videos.of(["a.mp4", "b.mp4", "c.mp4"], num_frames=16, caption=[packed(*SEVERAL), "a cat", ""])
    return lambda seed: ClipDataset(videos, ClipSettings(num_frames=2, clips_per_video=40, seed=seed))


def test_the_draw_is_a_function_of_seed_epoch_and_clip(dataset):
    one, same, other = dataset(0), dataset(0), dataset(1)
    addresses = [(clip, epoch) for epoch in range(3) for clip in range(len(one))]
    drawn = [one.caption(*address) for address in addresses]
    assert drawn == [same.caption(*address) for address in reversed(addresses)][::-1]
    assert drawn != [other.caption(*address) for address in addresses]
    assert described(one, addresses)["caption"] == drawn
    several = [words for words, (clip, _) in zip(drawn, addresses, strict=True) if one.row(clip) == 0]
    counts = np.array([several.count(words) for words in SEVERAL])
    assert counts.sum() == len(several) > 20
    assert counts.min() > 0.15 * len(several)
    assert {words for words, (clip, _) in zip(drawn, addresses, strict=True) if one.row(clip) > 0} == {"a cat", ""}


def listed(tmp_path, name, rows):
    (tmp_path / name).write_text(rows)
    return read_manifests(tmp_path / name).train


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("l.jsonl", json.dumps({"path": "a.mp4", "caption": [*SEVERAL, None, "nan"]})),
        ("l.json", json.dumps([{"path": "a.mp4", "caption": SEVERAL}])),
        ("l.csv", "path,caption\na.mp4,\"['a dog', 'a hound', 'an animal']\"\n"),
        ("l.csv", 'path,caption\na.mp4,"[""a dog"", ""a hound"", ""an animal""]"\n'),
    ],
)
def test_several_captions_survive_the_index_a_manifest_and_shards(tmp_path, name, rows):
    manifest = listed(tmp_path, name, rows)
    assert items(manifest)[0].caption == "a dog"
    (tmp_path / "a.mp4").write_bytes(b"")
    index = build_index(manifest, path=tmp_path / "i.arrow", probe_many=look)
    assert index.videos.captions(0) == tuple(SEVERAL)
    assert [caption for _, _, caption, _ in sources_of(index.videos)] == [packed(*SEVERAL)]
    for ending in ("csv", "jsonl", "parquet"):
        write_manifest(tmp_path / f"again.{ending}", index.videos)
        again = read_manifests(tmp_path / f"again.{ending}").train
        assert again.table["caption"].to_pylist() == [packed(*SEVERAL)]


def look(paths):
    for _ in paths:
        yield Facts("h264", "mp4", "yuv420p", (48, 64), 0, np.arange(4) * 40, 160, (1, 1000), np.zeros((1, 2), int))


def test_captions_of_numpy_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"row 1 \(line 2\), column 'text', which holds a list that cannot be read"):
        listed(tmp_path, "l.csv", "path,text\na.mp4,\"['a dog' 'a hound']\"\n")


def test_a_written_manifest_keeps_what_has_no_class(tmp_path):
    videos = Videos.of(["a.mp4", "b.mp4"], num_frames=8, label=[1, -1])
    write_manifest(tmp_path / "l.csv", videos, class_names=("waves", "wind"))
    assert [item.label for item in items(read_manifests(tmp_path / "l.csv").train)] == [0, -1]
    with pytest.raises(ValueError, match="a class named 'None', which means none in a list"):
        write_manifest(tmp_path / "l.csv", videos, class_names=("waves", "None"))
    videos = Videos.of(["a.mp4", "b.mp4"], num_frames=8, caption=["a\rdog", "x"])
    write_manifest(tmp_path / "l.csv", videos)
    assert [item.caption for item in items(read_manifests(tmp_path / "l.csv").train)] == ["a\rdog", "x"]


def test_class_folders_may_have_names_that_mean_nothing_in_lists(tmp_path):
    for name in ("nan", "None", "wind"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").touch()
    assert scan(tmp_path).class_names == ("None", "nan", "wind")


def test_a_text_that_cannot_be_read_is_refused_before_any_video_is_looked_at(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b.txt").write_bytes("\u7ea2".encode("gbk"))
    asked = []
    with pytest.raises(ValueError, match=r"b\.txt, whose byte 0 \(0xba, line 1\) is not UTF-8"):
        build_index(scan(tmp_path), path=tmp_path / "i.arrow", probe_many=lambda paths: iter(asked.append(paths) or ()))
    assert asked == []
    (tmp_path / "b.txt").write_bytes(b"None\n")
    assert [item.caption for item in items(scan(tmp_path))] == ["", ""]


def test_a_text_that_may_not_be_read_is_no_missing_one(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.txt").write_text("a dog")
    manifest = scan(tmp_path)
    (tmp_path / "a.txt").unlink()
    assert items(manifest)[0].caption == ""  # gone since
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        items(manifest)[0]


def fill_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_texts_in_tars(tmp_path):
    members = [
        ("._a.mp4", b"\0\5\x16\7"),  # macOS writes these between the others
        ("a.mp4", b"1"),
        ("._a.txt", b"\0\5\x16\7"),
        ("a.txt", b"\xef\xbb\xbfa dog"),
        ("b.mp4", b"2"),
        ("b.TXT", "a cat".encode("utf-16")),
        ("b.cls", b"2.0\n"),
        ("c.mp4", b"3"),
        ("c.json", json.dumps({"text": None, "caption": SEVERAL, "label": 10.0}).encode("utf-8-sig")),
        ("d.mp4", b"4"),
        ("d.cls", b"nan"),
        (".hidden/e.mp4", b"5"),
        ("./f.mp4", b"6"),
    ]
    rows = [(row.key, row.label, row.caption) for row in shard_rows(fill_tar(tmp_path / "a.tar", members))]
    assert rows == [
        ("a.mp4", -1, "a dog"),
        ("b.mp4", 2, "a cat"),
        ("c.mp4", 10, packed(*SEVERAL)),
        ("d.mp4", -1, ""),
        ("./f.mp4", -1, ""),
    ]
    manifest: Manifest = scan(tmp_path / "a.tar")
    assert manifest.class_names == tuple(map(str, range(11)))
    assert items(manifest)[2].caption == "a dog"


def test_hidden_tars_of_a_store_are_passed_over(tmp_path):
    tar = fill_tar(tmp_path / "a.tar", [("a.mp4", b"1")]).read_bytes()
    fsspec.filesystem("memory").pipe({"/hidden_tars/a.tar": tar, "/hidden_tars/._a.tar": b"\0\5"})
    assert [row.key for row in shard_rows("memory://hidden_tars")] == ["a.mp4"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\u7ea2".encode("gbk"), r"a\.txt in .*a\.tar, whose byte 0 \(0xba, line 1\) is not UTF-8"),
        ("a.json", b'{"caption": {"en": "x"}}', r"a\.mp4 in .*a\.tar, which holds \{'en': 'x'\}; expected text"),
        ("a.json", b'["x"]', r"JSON of a\.mp4 in .*a\.tar, which is no object"),
        ("a.json", b'{"label": 2.7}', r"class '2\.7' in .*a\.tar, for a\.mp4; expected a whole number"),
        ("a.cls", b"99999999999", r"class '99999999999' in .*a\.tar, for a\.mp4"),
        ("a.cls", b"-2", r"class '-2' in .*a\.tar, for a\.mp4"),
    ],
)
def test_bad_texts_in_tars_are_refused_by_name(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        list(shard_rows(fill_tar(tmp_path / "a.tar", [("a.mp4", b"x"), (name, content)])))


def test_texts_that_do_not_follow_their_videos_are_told(tmp_path):
    tar = fill_tar(tmp_path / "a.tar", [("a.mp4", b"1"), ("b.mp4", b"2"), ("a.txt", b"a dog"), ("b.txt", b"a cat")])
    with pytest.warns(LeftOutWarning, match=r"got 2 texts of tars that do not follow.*a\.tar: a\.txt, b\.txt"):
        assert [item.caption for item in items(scan(tar))] == ["", ""]
