"""What folders mean: parts by any of their names, classes, or a refusal that names both readings; nothing unsaid."""

import io
import os
import tarfile
import unicodedata
import warnings
import zipfile

import av
import fsspec
import numpy as np
import pytest

from flexivid.data.decoding.reader import open_video
from flexivid.data.lists.classes import SPLITS, TRAIN
from flexivid.data.sources.folders import find_videos
from flexivid.data.sources.layout import Collection, find_parts
from flexivid.data.sources.leftovers import LeftOutWarning
from flexivid.data.sources.manifest import read_manifests
from flexivid.data.storage.archives import extract
from flexivid.data.storage.video_names import EXTENSIONS

from .listed import items

NFC = unicodedata.normalize("NFC", "cafe\u0301")
NFD = unicodedata.normalize("NFD", NFC)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read(root, layout="auto"):
    """(class, path below the root) of the training and of the held-out videos, and what was told."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        manifests = read_manifests(Collection(str(root), layout))
    parts = []
    for part in manifests[:2]:
        names = manifests.train.class_names
        rows = [] if part is None else items(part)
        parts.append([(names[row.label] if row.label >= 0 else "", str(row.path).split(f"{root}/")[1]) for row in rows])
    messages = [str(one.message) for one in told if issubclass(one.category, LeftOutWarning)]
    notes = {note for part in manifests[:2] if part is not None for note in part.notes}
    assert set(messages) == notes  # the report of `check` has what training is warned of
    return parts[0], parts[1], " ".join(messages)


def write_tar(path, *names):
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"1234"))


SYNONYMS = [(train, held_out) for train in TRAIN for names in SPLITS.values() for held_out in names]


@pytest.mark.parametrize(("train", "held_out"), SYNONYMS)
@pytest.mark.parametrize("write", [str.lower, str.upper, str.title, lambda name: name.replace("_", "-")])
def test_folders_take_every_name_that_lists_take(tmp_path, train, held_out, write):
    touch(tmp_path, f"{write(train)}/1.mp4", f"{write(held_out)}/2.mp4")
    assert read(tmp_path) == ([("", f"{write(train)}/1.mp4")], [("", f"{write(held_out)}/2.mp4")], "")
    (tmp_path / "list.csv").write_text(f"path,split\n1.mp4,{write(train)}\n2.mp4,{write(held_out)}\n")
    manifests = read_manifests(tmp_path / "list.csv")
    assert [len(manifests.train), len(manifests.held_out)] == [1, 1]


def test_a_class_called_train(tmp_path):
    touch(tmp_path, "car/1.mp4", "plane/2.mp4", "train/3.mp4", "bus/4.mp4")
    with pytest.raises(ValueError, match=r"train/ in .* beside bus/ \(1 videos\), car/ .*plane/") as error:
        read_manifests(tmp_path)
    for reading in ("train/ alone", "classes (bus, car, plane, train", "data.layout", "splits", "classes", "flat"):
        assert reading in str(error.value)
    videos = ["bus/4.mp4", "car/1.mp4", "plane/2.mp4", "train/3.mp4"]
    assert read(tmp_path, "classes") == ([(name.split("/")[0], name) for name in videos], [], "")
    assert read(tmp_path, "flat") == ([("", name) for name in videos], [], "")
    train, held_out, told = read(tmp_path, "splits")
    assert (train, held_out) == ([("", "train/3.mp4")], [])
    assert "bus/ (1 videos), car/ (1 videos), plane/ (1 videos) beside the parts" in told


REFUSED = {
    "a stray video beside train": (["train/1.mp4", "2.mp4"], "beside 1 videos in no folder", ["splits", "flat"]),
    "two names for one part": (["train/1.mp4", "Training/2.mp4", "val/3.mp4"], "Training and train", ["classes"]),
    "val and validation": (["train/1.mp4", "val/2.mp4", "validation/3.mp4"], "all mean val", ["classes"]),
    "longer names": (["videos_train/1.mp4", "videos_val/2.mp4"], "videos_train, videos_val", ["splits", "classes"]),
    "sets": (["train_set/1.mp4", "test_set/2.mp4"], "test_set, train_set", ["splits", "classes"]),
    "one folder down": (["kinetics/train/1.mp4", "kinetics/val/2.mp4"], "train, val in .*/kinetics", ["flat"]),
    "parts inside classes": (["car/train/1.mp4", "car/test/2.mp4"], "test, train in .*/car", ["classes", "flat"]),
    "nothing to train on": (["test/1.mp4", "bus/2.mp4"], "test but no .*train; expected both or neither", ["classes"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_two_readings_are_refused(tmp_path, case):
    names, message, layouts = REFUSED[case]
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match=message) as error:
        read_manifests(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "data.layout" in str(error.value)
    for layout in layouts:  # each one named settles it, and no video is lost without a word
        train, held_out, told = read(tmp_path, layout)
        assert len(train) + len(held_out) == len(names) or told
    assert read(tmp_path, "flat")[:2] == ([("", name) for name in sorted(names, key=folders_last)], [])


def folders_last(name):
    return ("/" in name, name)


def test_what_lies_beside_parts_is_told(tmp_path):
    touch(tmp_path, "train/1.mp4", "val/2.mp4", "test/3.mp4", "test/4.mp4", "extra/5.mp4", "6.mp4", "notes/a.md")
    train, held_out, told = read(tmp_path)
    assert (train, held_out) == ([("", "train/1.mp4")], [("", "val/2.mp4")])
    assert "test/ beside val/" in told
    assert "with 2 videos" in told
    assert "extra/ (1 videos), 1 videos in no folder" in told
    assert "notes" not in told


def test_empty_folders_do_not_count(tmp_path):
    touch(tmp_path, "train/1.mp4", "docs/readme.md", "Training/list.md")
    assert read(tmp_path) == ([("", "train/1.mp4")], [], "")


@pytest.mark.parametrize("names", [("car/1.mp4", "bus/2.mp4", "stray.mp4"), ("car/1.mp4", "bus/deep/2.mp4")])
def test_folders_that_are_nearly_classes(tmp_path, names):
    touch(tmp_path, *names)
    train, _, told = read(tmp_path)
    assert {name for name, _ in train} == {""}
    assert "not taken for classes (bus, car" in told
    assert "data.layout" in told
    assert read(tmp_path, "flat")[2] == ""
    if "stray.mp4" in names:
        with pytest.raises(ValueError, match=r"stray\.mp4, whose folder is none of the 2 classes"):
            read(tmp_path, "classes")
    else:
        assert read(tmp_path, "classes") == ([("bus", "bus/deep/2.mp4"), ("car", "car/1.mp4")], [], "")


def test_classes_in_other_unicode_forms_are_the_same_class(tmp_path):
    touch(tmp_path, f"train/{NFD}/1.mp4", "train/b/2.mp4", f"val/{NFC}/3.mp4")
    train, held_out, _ = read(tmp_path)
    assert [name for name, _ in train] == ["b", NFC]
    assert [name for name, _ in held_out] == [NFC]


def test_a_wrong_layout(tmp_path):
    touch(tmp_path, "a/1.mp4")
    with pytest.raises(ValueError, match=r"got data\.layout=parts; expected one of auto, splits, classes, flat"):
        read_manifests(Collection(str(tmp_path), "parts"))
    with pytest.raises(ValueError, match=r"=splits for .* with the folders a; expected train, and held_out, val"):
        read_manifests(Collection(str(tmp_path), "splits"))
    (tmp_path / "list.csv").write_text("path\na/1.mp4\n")
    with pytest.warns(UserWarning, match="=flat for the list .*; it has no effect"):
        read_manifests(Collection(str(tmp_path / "list.csv"), "flat"))


def test_parts_of_a_store():
    files = fsspec.filesystem("memory")
    for name in ("car/1.mp4", "train/2.mp4", "bus/__MACOSX/x.mp4", "plane/.x.mp4"):
        files.pipe(f"/store/{name}", b"x")
    with pytest.raises(ValueError, match=r"train/ in memory://store beside car/ \(1 videos\); expected one of two"):
        read_manifests("memory://store")
    assert find_parts("memory://store", "splits").train == "memory://store/train"
    files.rm("/store", recursive=True)


CAPTIONS = {
    "1.mp4": ("1.txt", True),
    "2.mp4": ("2.TXT", True),
    "3.mp4": ("3.caption", True),
    "4.mp4": ("4.mp4.txt", True),
    f"{NFD}.mp4": (f"{NFC}.Txt", True),
    "6.mp4": ("6.srt", False),
    "7.MOV": ("7.CAPTION", True),
}


def test_side_cars(tmp_path):
    for video, (text, _) in CAPTIONS.items():
        (tmp_path / text).write_text(f"words of {video}\n")
        touch(tmp_path, video)
    touch(tmp_path, "prompts.txt", "README.txt", "1.caption", ".2.txt")
    with pytest.warns(LeftOutWarning, match=r"2 texts that are the caption of no video.*1\.caption, prompts\.txt"):
        listed = items(read_manifests(tmp_path).train)
    assert {item.path.name: item.caption for item in listed} == {
        video: f"words of {video}" if used else "" for video, (_, used) in CAPTIONS.items()
    }


@pytest.mark.parametrize("ending", [".txt", ".TXT", ".caption"])
def test_side_cars_of_folders_of_pictures(tmp_path, ending):
    touch(tmp_path, *(f"walk/{i:03d}.png" for i in range(3)), "walk/._003.png")
    (tmp_path / f"walk{ending}").write_text("a walk")
    assert [(item.path.name, item.caption) for item in items(read_manifests(tmp_path).train)] == [("walk", "a walk")]


def test_nothing_hidden_is_read_anywhere(tmp_path):
    hidden = ("._1.mp4", "__MACOSX/1.mp4", "@eaDir/1.mp4", ".cache/1.mp4", "a/._2.mp4")
    touch(tmp_path, "1.mp4", *hidden, ".DS_Store", "Thumbs.db")
    assert read(tmp_path, "flat") == ([("", "1.mp4")], [], "")
    write_tar(tmp_path / "v.tar", *hidden, "./2.mp4", "./._2.mp4", "._2.txt", "2.txt")
    rows = items(read_manifests(tmp_path / "v.tar").train)
    assert [(row.caption, str(row.path).rpartition("+")[2]) for row in rows] == [("", "4")]
    (tmp_path / "list.csv").write_text("path\n1.mp4\n._1.mp4\n__MACOSX/1.mp4\n")
    train, told = read_list(tmp_path)
    assert train == ["1.mp4"]
    assert "2 hidden files" in told
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as archive:
        for name in ("1.mp4", *hidden):
            archive.writestr(name, b"x")
    extract(tmp_path / "v.zip", tmp_path / "unpacked", progress=False)
    assert [path.name for path in (tmp_path / "unpacked").rglob("*")] == ["1.mp4"]


def read_list(root):
    with pytest.warns(LeftOutWarning) as told:
        listed = items(read_manifests(root / "list.csv").train)
    return [item.path.name for item in listed], str(told[0].message)


def test_metadata_beside_the_videos(tmp_path):
    touch(tmp_path, "1.mp4", "deep/2.mp4", "3.mp4")
    (tmp_path / "3.txt").write_text("own words")
    (tmp_path / "Metadata.CSV").write_text("file_name,text,label\n1.mp4,a dog,x\n./deep/2.mp4,,y\ngone.mp4,no,x\n")
    train, _, told = read(tmp_path)
    assert train == [("x", "1.mp4"), ("", "3.mp4"), ("y", "deep/2.mp4")]
    assert "1 videos that" in told
    assert "3.mp4" in told
    assert "1 rows of" in told
    assert "gone.mp4" in told
    assert [item.caption for item in items(read_manifests(tmp_path).train)] == ["a dog", "own words", "y"]


@pytest.mark.parametrize("above", [False, True])
def test_metadata_of_parts(tmp_path, above):
    touch(tmp_path, "train/1.mp4", "val/2.mp4")
    rows = {"train": ("1.mp4", "sea"), "val": ("2.mp4", "sky")}
    if above:
        lines = [f'{{"file_name": "{part}/{name}", "text": "{words}"}}' for part, (name, words) in rows.items()]
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    else:
        for part, (name, words) in rows.items():
            (tmp_path / part / "metadata.csv").write_text(f"file_name,text\n{name},{words}\n")
    manifests = read_manifests(tmp_path)
    assert [items(part)[0].caption for part in manifests[:2]] == ["sea", "sky"]
    assert [part.notes for part in manifests[:2]] == [(), ()]


def test_faults_of_metadata_name_the_video(tmp_path):
    touch(tmp_path, "v/1.mp4", "v/2.mp4")
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,split\nv/2.mp4,trial\nv/1.mp4,train\n")
    with pytest.raises(ValueError, match=r"got split 'trial' in .*; expected train.*; correct the row of .*v/2\.mp4"):
        read(tmp_path)
    table.write_text("file_name,label\nv/2.mp4,0.5\nv/1.mp4,1\n")
    with pytest.raises(
        ValueError, match=r"got class '0\.5' in .*metadata\.csv, the row of .*v/2\.mp4; expected a whole"
    ):
        read(tmp_path)


def test_numbers_in_metadata_mean_the_same_in_both_parts(tmp_path):
    touch(tmp_path, "train/1.mp4", "train/2.mp4", "val/3.mp4")
    for part, rows in (("train", "1.mp4,2\n2.mp4,0\n"), ("val", "3.mp4,2.0\n")):
        (tmp_path / part / "metadata.csv").write_text(f"file_name,label\n{rows}")
    train, held_out, _ = read(tmp_path)
    assert (train, held_out) == ([("2", "train/1.mp4"), ("0", "train/2.mp4")], [("2", "val/3.mp4")])


def test_metadata_with_parts(tmp_path):
    touch(tmp_path, "v/1.mp4", "v/2.mp4", "v/3.mp4")
    (tmp_path / "metadata.csv").write_text("file_name,split\nv/1.mp4,train\nv/2.mp4,validation\n")
    train, held_out, told = read(tmp_path)
    assert (train, held_out) == ([("", "v/1.mp4")], [("", "v/2.mp4")])
    assert "1 videos that" in told


def test_two_lists_or_other_ones(tmp_path):
    touch(tmp_path, "1.mp4")
    (tmp_path / "captions.csv").write_text("video,caption\n1.mp4,words\n")
    assert "1 list beside the videos, which is not read; name it" in read(tmp_path)[2]
    (tmp_path / "metadata.csv").write_text("id,words\n1,2\n")
    with pytest.raises(ValueError, match=r"no column of paths.*or rename metadata\.csv"):
        read_manifests(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"metadata\.csv and .*metadata\.jsonl; expected one list in a folder"):
        read_manifests(tmp_path)


def test_shards_and_files_in_one_folder(tmp_path):
    touch(tmp_path, "1.mp4")
    write_tar(tmp_path / "v.tar", "2.mp4", "3.json", "4.rgb.mp4", "4.depth.mp4")
    with pytest.raises(ValueError, match=r"holds shards, and 1 videos in files .*\*\.tar for tars.*data\.layout"):
        read_manifests(tmp_path)
    assert read(tmp_path, "flat")[0] == [("", "1.mp4")]
    assert "got 1 archive, which is not looked into; unpack it" in read(tmp_path, "flat")[2]
    with pytest.warns(LeftOutWarning) as told:
        rows = read_manifests(f"{tmp_path}/*.tar").train
    assert len(rows) == 2
    assert {str(one.message).split(",")[0] for one in told} == {
        "got 1 sample of tars without a video",
        "got 1 video of a tar beside another one of its sample",
    }


def test_tars_with_odd_names(tmp_path):
    folder = tmp_path / "[set] {0..1}"
    folder.mkdir()
    for name in ("a[1].tar", "b.TAR", "._c.tar"):
        write_tar(folder / name, "1.mp4")
    assert len(read_manifests(folder).train) == 2
    assert len(read_manifests(folder / "a[1].tar").train) == 1
    assert len(read_manifests(f"{folder}/*.tar").train) == 1
    with pytest.raises(FileNotFoundError, match=r"none\.tar, which does not exist; expected a tar"):
        read_manifests(tmp_path / "none.tar")


def test_an_index_of_something_else(tmp_path):
    touch(tmp_path, "1.mp4")
    (tmp_path / "index.json").write_text('{"name": "page"}')
    assert read(tmp_path) == ([("", "1.mp4")], [], "")


def test_leftovers(tmp_path, monkeypatch):
    touch(tmp_path, "1.mp4", "a.zip", "b.tar.gz", "c.yuv", "d.mp4.part", "e.json", "sub/x\ny.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    (tmp_path / "loop").symlink_to(tmp_path)
    with open(bytes(tmp_path) + b"/caf\xe9.mp4", "w"):
        pass
    train, _, told = read(tmp_path, "flat")
    assert [name for _, name in train] == ["1.mp4", "link/x\ny.mp4"]
    for part in ("2 archives", "2 files that seem to be videos", "1 link to a folder that", "1 name that is not UTF-8"):
        assert part in told
    found = find_videos(str(tmp_path))
    assert found.leftovers.endings["json"] == 1


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    touch(tmp_path, "1.mp4", "secret/2.mp4")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "1 folder that cannot be read, which is left out; change its permissions" in read(tmp_path, "flat")[2]


CONTAINERS = {
    **{
        "MTS": ("mpegts", "libx264"),
        "vob": ("vob", "mpeg2video"),
        "mxf": ("mxf", "mpeg2video"),
        "Asf": ("asf", "wmv2"),
    },
    **{"y4m": ("yuv4mpegpipe", "rawvideo"), "f4v": ("f4v", "libx264"), "3g2": ("3g2", "libx264")},
    **{"DIVX": ("avi", "mpeg4"), "m2v": ("mpeg2video", "mpeg2video"), "h264": ("h264", "libx264")},
    **{"nut": ("nut", "mpeg4"), "rm": ("rm", "rv20"), "m2ts": ("mpegts", "libx264"), "ivf": ("ivf", "libvpx-vp9")},
}


@pytest.mark.parametrize("ending", CONTAINERS)
def test_containers_are_found_and_decoded(tmp_path, ending):
    container, codec = CONTAINERS[ending]
    path = tmp_path / f"a.{ending}"
    levels = list(range(20, 220, 20))
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for level in levels:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((96, 128, 3), level, np.uint8))))
        file.mux(stream.encode())
    assert [name for _, name in read(tmp_path)[0]] == [path.name]
    with open_video(path) as reader:
        frames = reader.frames(range(reader.num_frames))
    assert np.abs(frames.mean(axis=(1, 2, 3)) - levels).max() < 5
    assert ending.lower() in EXTENSIONS
