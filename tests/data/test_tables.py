"""Lists of videos: the same rows from every format, columns by name, and a clear word when they are not there."""

import gzip
import json

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from flexivid.data.manifest import read_manifests

ROWS = [
    {"video_path": "a/1.mp4", "cap": 'a "red", big dog', "class": "wind", "split": "train", "other": 1},
    {"video_path": "/abs/2.mp4", "cap": "a cat\nsleeps", "class": "waves", "split": "validation", "other": 2},
    {"video_path": "s3://bucket/3.mp4", "cap": "", "class": "wind", "split": "train", "other": 3},
]


def as_csv(rows, delimiter=","):
    def quoted(value):
        return '"' + str(value).replace('"', '""') + '"'

    lines = [delimiter.join(rows[0])] + [delimiter.join(map(quoted, row.values())) for row in rows]
    return ("\ufeff" + "\n".join(lines) + "\n").encode()


def parquet(rows):
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def write(name, rows):
    encode = {
        "csv": as_csv,
        "tsv": lambda rows: as_csv(rows, "\t"),
        "json": lambda rows: json.dumps(rows).encode(),
        "jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "parquet": parquet,
    }
    data = encode[name.removesuffix(".gz").split(".")[-1]](rows)
    return gzip.compress(data) if name.endswith(".gz") else data


@pytest.mark.parametrize(
    "name", ["l.csv", "l.tsv", "l.json", "l.jsonl", "l.parquet", "L.CSV", "l.csv.gz", "l.jsonl.gz"]
)
def test_same_rows_from_every_format(tmp_path, name):
    (tmp_path / name).write_bytes(write(name.lower(), ROWS))
    train, held_out = read_manifests(tmp_path / name)
    assert train.class_names == held_out.class_names == ("waves", "wind")
    assert list(train.items) == [
        (tmp_path / "a/1.mp4", 1, 'a "red", big dog'),
        ("s3://bucket/3.mp4", 1, ""),
    ]
    assert [(str(path), label, words) for path, label, words in held_out.items] == [("/abs/2.mp4", 0, "a cat\nsleeps")]


def test_remote_list_and_its_relative_paths():
    fsspec.filesystem("memory").pipe("/remote_list/list.csv", as_csv(ROWS[:1]))
    assert read_manifests("memory://remote_list/list.csv").train.items[0].path == "memory://remote_list/a/1.mp4"


@pytest.mark.parametrize("classes", [[2, 0, None], ["2", "0", ""], [2, 0, -1]])
def test_numbers_of_classes_stay(tmp_path, classes):
    path = tmp_path / "l.jsonl"
    rows = [{"path": "a.mp4", "label": number} for number in classes]
    path.write_bytes(write("l.jsonl", rows))
    manifest = read_manifests(path).train
    assert [item.label for item in manifest.items] == [2, 0, -1]
    assert manifest.class_names == ("0", "1", "2")
    assert {item.caption for item in manifest.items} == {""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("videoid,name\n1,a\n", r"no column of paths among 'videoid', 'name'; expected one of path, video, video_path"),
        ("path,video\n1,a\n", r"2 columns for the path \(path, video\) among 'path', 'video'"),
        ("path,text,caption\na,b,c\n", r"2 columns for the caption"),
        ("path,split\na.mp4,trian\n", r"split 'trian' in .*l\.csv; expected train, val, test or held_out"),
        ("path,split\na.mp4,test\n", r"no row of the split train"),
        ("path,label\na.mp4,123456789\n", r"class '123456789' in .*l\.csv, row 1"),
        ("path,text\n,b\n", r"l\.csv, row 1 \(line 2\), column 'path', without a path"),
        ("path,text\na,b,c\n", r"l\.csv, row 1 \(line 2\) with 3 cells; expected 2"),
        ("path,text\n", r"l\.csv"),
        ("", r"l\.csv"),
    ],
)
def test_refusals(tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifests(tmp_path / "l.csv")


def test_refusals_of_json(tmp_path):
    (tmp_path / "l.json").write_text('{"path": "a.mp4"}')
    with pytest.raises(ValueError, match="no list of objects"):
        read_manifests(tmp_path / "l.json")
    (tmp_path / "l.json").write_text('[{"path": ')
    with pytest.raises(ValueError, match=r"l\.json, row 1 \(line 1\), which cannot be read"):
        read_manifests(tmp_path / "l.json")
    with pytest.raises(FileNotFoundError, match="which does not exist; expected a list"):
        read_manifests(tmp_path / "none.jsonl")


def test_real_list(shared_videos):
    manifest = read_manifests(shared_videos / "train" / "metadata.csv").train
    assert manifest.items[0].caption == "an animated film about a big rabbit"
    assert all(item.path.exists() for item in manifest.items)
