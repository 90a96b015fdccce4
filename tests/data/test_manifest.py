"""Which files are videos, and which class each belongs to; by name alone."""

import fsspec
import pytest

from flexivid.data.sources.layout import find_parts
from flexivid.data.sources.manifest import read_manifests

from .listed import items, scan


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_finds_any_depth_container_and_case_but_nothing_hidden(tmp_path):
    touch(tmp_path, "b.MP4", "x/y/z/a.WebM", "x/c.m2ts", ".hidden.mp4", ".cache/d.mp4", "notes.txt", "mp4")
    names = [item.path.relative_to(tmp_path).as_posix() for item in items(scan(tmp_path))]
    assert names == ["b.MP4", "x/c.m2ts", "x/y/z/a.WebM"]


def test_class_folders(tmp_path):
    manifest = scan(touch(tmp_path, "wind/1.mp4", "waves/2.mkv", "waves/3.mkv", "empty/readme.txt"))
    assert manifest.class_names == ("waves", "wind")
    assert [(item.label, item.caption) for item in items(manifest)] == [(0, "waves"), (0, "waves"), (1, "wind")]


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (["1", "2", "10"], [1, 2, 10]),
        (["0", "01", "002"], [0, 1, 2]),
        (["-1", "3"], [-1, 3]),
        (["10", "9", "a"], [0, 1, 2]),
        (["0.5", "10", "9"], [0, 1, 2]),
        (["20240101", "20231231"], [1, 0]),
    ],
)
def test_class_folders_that_are_numbers_are_numbered_as_in_lists(tmp_path, folders, labels):
    touch(tmp_path, *(f"train/{name}/{i}.mp4" for i, name in enumerate(folders)), f"val/{folders[-1]}/a.mp4")
    train, held_out, _ = read_manifests(tmp_path)
    assert {item.path.parent.name: item.label for item in items(train)} == dict(zip(folders, labels, strict=True))
    assert items(held_out)[0].label == labels[-1]
    assert held_out.class_names == train.class_names
    assert len(train.class_names) == max(labels) + 1


@pytest.mark.parametrize(
    "names", [("a/1.mp4", "a/2.mp4"), ("a/1.mp4", "b/2.mp4", "3.mp4"), ("a/1.mp4", "b/deep/2.mp4")]
)
def test_no_classes(tmp_path, names):
    manifest = scan(touch(tmp_path, *names))
    assert manifest.class_names == ()
    assert {item.label for item in items(manifest)} == {-1}


def test_held_out_gets_the_numbers_of_the_training_folder(tmp_path):
    touch(tmp_path, "c/1.mp4")
    assert items(scan(tmp_path, class_names=("a", "b", "c")))[0].label == 2
    with pytest.raises(ValueError, match=r"got .*1\.mp4, whose folder is none of the 2 classes; expected"):
        scan(tmp_path, class_names=("a", "b"))


def test_follows_links_once(tmp_path):
    touch(tmp_path, "real/a/1.mp4")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path / "real")
    assert len(items(scan(tmp_path / "root"))) == 1


def test_refusals(tmp_path):
    touch(tmp_path, "one/a.txt", "one/b.txt")
    with pytest.raises(FileNotFoundError, match="which does not exist; expected a folder of videos"):
        scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="a file; expected a folder"):
        scan(tmp_path / "one" / "a.txt")
    with pytest.raises(ValueError, match=r"holds 2 other files and no video; expected files ending in mp4, m4v.*ogv"):
        scan(tmp_path / "one")


def test_splits(tmp_path):
    assert find_parts(str(tmp_path)) == (str(tmp_path), None, (), ())
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match=r"test but no .*train; expected both or neither"):
        find_parts(str(tmp_path))
    (tmp_path / "train").mkdir()
    assert find_parts(str(tmp_path))[:2] == (f"{tmp_path}/train", f"{tmp_path}/test")
    (tmp_path / "held_out").mkdir()
    assert find_parts(str(tmp_path)).held_out == f"{tmp_path}/held_out"


def test_text_beside_a_video_is_its_caption(tmp_path):
    touch(tmp_path, "wind/1.mp4", "waves/2.mkv", "waves/3.mkv", "waves/other.txt")
    (tmp_path / "waves" / "2.txt").write_text("a boat\n")
    assert [item.caption for item in items(scan(tmp_path))] == ["a boat", "waves", "wind"]


def test_folders_of_pictures(tmp_path):
    touch(tmp_path, *(f"{name}/{i:03d}.png" for name in ("a/one", "b/two") for i in range(3)), "a/one/cover.png")
    manifest = scan(tmp_path)
    assert [item.path.name for item in items(manifest)] == ["one", "two"]
    assert manifest.class_names == ("a", "b")
    touch(tmp_path, "c/film.mp4")
    with pytest.warns(UserWarning, match=r"2 folders of numbered pictures beside the video files"):
        assert [item.path.name for item in items(scan(tmp_path))] == ["film.mp4"]


def test_ucf101(tmp_path):
    lists = tmp_path / "ucfTrainTestlist"
    touch(tmp_path, "UCF-101/Archery/v_Archery_g08_c01.avi")
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\n2 BabyCrawling\n")
    (lists / "trainlist01.txt").write_text("BabyCrawling/v_BabyCrawling_g09_c01.avi 2\r\n")
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g08_c01.avi\n")
    for root in (tmp_path, lists, lists / "trainlist01.txt"):
        train, held_out, _ = read_manifests(root)
        assert train.class_names == ("Archery", "BabyCrawling")
        assert items(train)[0] == (tmp_path / "UCF-101/BabyCrawling/v_BabyCrawling_g09_c01.avi", 1, "BabyCrawling")
        assert [(item.label, item.path.exists()) for item in items(held_out)] == [(0, True)]
        assert train.root != held_out.root
    touch(tmp_path, "UCF-101/Archery/v_Archery_g99_c01.avi")
    with pytest.warns(UserWarning, match=r"1 videos in .* that its train and test lists do not name, such as .*g99"):
        read_manifests(tmp_path)


def test_remote_folders():
    files = fsspec.filesystem("memory")
    for name in ("train/wind/1.mp4", "train/waves/2.MKV", "val/wind/3.mp4", "train/waves/.4.mp4"):
        files.pipe(f"/remote_folders/{name}", b"x")
    files.pipe("/remote_folders/train/waves/2.txt", b"a boat")
    train, held_out, _ = read_manifests("memory://remote_folders")
    assert [(item.path[-8:], item.label, item.caption) for item in items(train)] == [
        ("es/2.MKV", 0, "a boat"),
        ("nd/1.mp4", 1, "wind"),
    ]
    assert items(held_out)[0].label == 1
    with fsspec.open(items(train)[1].path) as file:
        assert file.read() == b"x"
    with pytest.raises(FileNotFoundError, match="memory://nowhere"):
        scan("memory://nowhere")
    files.rm("/remote_folders", recursive=True)
