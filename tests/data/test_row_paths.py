"""Rows of lists name what any other path names; what is written is read back."""

import os
import unicodedata

import pytest

from flexivid.data.index.videos import Videos
from flexivid.data.inspection.report import write_manifest
from flexivid.data.sources.manifest import read_manifests

from .listed import items

NFC = unicodedata.normalize("NFC", "cafe\u0301")
NFD = unicodedata.normalize("NFD", NFC)
ODD = [
    "2024::trip",
    "~",
    "~root",
    "[set] 1",
    "50% off",
    "a#b",
    "$HOME",
    "file:x",
    "shard:a#1+2",
    "a\\b",
    "s3:",
    NFC,
    NFD,
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths_of(root):
    return [str(item.path) for item in items(read_manifests(root).train)]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_what_check_writes_is_read_back(home, ending):
    paths = [f"{home}/lists/{name}/{number}.mp4" for number, name in enumerate(ODD)]
    for path in paths:
        os.makedirs(os.path.dirname(path))
        with open(path, "w"):
            pass
    paths += ["/else/1.mp4", "s3://bucket/a b/1.mp4", f"shard:{home}/v.tar#512+9", "shard:s3://bucket/v.tar#512+9"]
    write_manifest(f"{home}/lists/good.{ending}", Videos.of(paths))
    assert paths_of(f"{home}/lists/good.{ending}") == paths


def test_rows_are_read_as_roots_are(home):
    (home / "lists" / NFD).mkdir(parents=True)
    (home / "lists" / NFD / "1.mp4").touch()
    (home / "lists" / "sub").mkdir()
    (home / "lists" / "sub" / "2.mp4").touch()
    rows = {
        "~/1.mp4": f"{home}/home/1.mp4",
        "$DATA/1.mp4": f"{home}/data/1.mp4",
        "${DATA}/1.mp4": f"{home}/data/1.mp4",
        f"file://{home}/my%20trip/1.mp4": f"{home}/my trip/1.mp4",
        "S3://bucket/1.mp4": "s3://bucket/1.mp4",
        "https://host/1.mp4?a=b": "https://host/1.mp4?a=b",
        "./1.mp4": "lists/1.mp4",
        ".//a/./1.mp4": "lists/a/1.mp4",
        "../1.mp4": "lists/../1.mp4",
        "2024::trip/1.mp4": "lists/2024::trip/1.mp4",
        f"{NFC}/1.mp4": f"lists/{NFD}/1.mp4",
        "sub\\2.mp4": "lists/sub/2.mp4",
        "a$NONE.mp4": "lists/a$NONE.mp4",
    }
    (home / "lists" / "l.csv").write_text("path\n" + "\n".join(f'"{row}"' for row in rows), encoding="utf-8")
    assert paths_of("lists/l.csv") == list(rows.values())
    assert [os.path.abspath(path) for path in paths_of("~/../lists/l.csv")[6:]] == [
        os.path.abspath(path) for path in list(rows.values())[6:]
    ]


def test_a_folder_that_is_called_like_a_list(home):
    (home / "v.csv").mkdir()
    (home / "v.csv" / "1.mp4").touch()
    assert paths_of("v.csv") == ["v.csv/1.mp4"]
    assert paths_of(f"file://{home}/v.csv/") == [f"{home}/v.csv/1.mp4"]


def test_the_folder_of_a_list_may_have_any_name(home):
    for name in ODD:
        os.makedirs(f"{home}/odd/{name}", exist_ok=True)
        with open(f"{home}/odd/{name}/l.csv", "w") as file:
            file.write("path\n1.mp4\n")
        assert paths_of(f"{home}/odd/{name}/l.csv") == [f"{home}/odd/{name}/1.mp4"]
