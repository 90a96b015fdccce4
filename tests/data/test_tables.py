"""Lists of videos: the same rows from every format, columns by name, and a clear word when they are not there."""

import gzip
import json
import warnings

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from flexivid.data.sources.manifest import read_manifests

from .listed import items

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
    train, held_out, _ = read_manifests(tmp_path / name)
    assert train.class_names == held_out.class_names == ("waves", "wind")
    assert list(items(train)) == [
        (tmp_path / "a/1.mp4", 1, 'a "red", big dog'),
        ("s3://bucket/3.mp4", 1, ""),
    ]
    assert [(str(path), label, words) for path, label, words in items(held_out)] == [("/abs/2.mp4", 0, "a cat\nsleeps")]


def test_remote_list_and_its_relative_paths():
    fsspec.filesystem("memory").pipe("/remote_list/list.csv", as_csv(ROWS[:1]))
    assert items(read_manifests("memory://remote_list/list.csv").train)[0].path == "memory://remote_list/a/1.mp4"


@pytest.mark.parametrize("classes", [[2, 0, None], ["2", "0", ""], [2, 0, -1]])
def test_numbers_of_classes_stay(tmp_path, classes):
    path = tmp_path / "l.jsonl"
    rows = [{"path": "a.mp4", "label": number} for number in classes]
    path.write_bytes(write("l.jsonl", rows))
    manifest = read_manifests(path).train
    assert [item.label for item in items(manifest)] == [2, 0, -1]
    assert manifest.class_names == ("0", "1", "2")
    assert {item.caption for item in items(manifest)} == {""}


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
    assert items(manifest)[0].caption == "an animated film about a big rabbit"
    assert all(item.path.exists() for item in items(manifest))


@pytest.mark.parametrize("nothing", ["", "nan", "NaN", "NA", "null", "None", "<NA>", "N/A"])
def test_words_for_nothing_are_no_classes_and_no_captions(tmp_path, nothing):
    (tmp_path / "l.csv").write_text(f"path,class,text\na.mp4,wind,x\nb.mp4,{nothing},{nothing}\n")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        manifest = read_manifests(tmp_path / "l.csv").train
    assert manifest.class_names == ("wind",)
    assert [(item.label, item.caption) for item in items(manifest)] == [(0, "x"), (-1, "")]
    assert [f"{nothing!r} in" in str(warning.message) for warning in told] == [True] * bool(nothing)


def float_labels(kind):
    labels = [0.0, 2.0, 10.0, None, 1.0]
    if kind == "csv":
        return "path,label\n" + "".join(f"{i}.mp4,{'' if n is None else n}\n" for i, n in enumerate(labels))
    rows = [{"path": f"{i}.mp4", "label": float("nan") if n is None else n} for i, n in enumerate(labels)]
    return "".join(json.dumps(row) + "\n" for row in rows) if kind == "jsonl" else json.dumps(rows)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet", "categories"])
def test_whole_numbers_as_pandas_writes_them_are_classes_in_the_order_of_numbers(tmp_path, kind):
    file = tmp_path / f"l.{'parquet' if kind == 'categories' else kind}"
    if file.suffix == ".parquet":
        labels = pa.array([0.0, 2.0, 10.0, float("nan"), 1.0])
        labels = labels.dictionary_encode() if kind == "categories" else labels
        pyarrow.parquet.write_table(pa.table({"path": [f"{i}.mp4" for i in range(5)], "label": labels}), file)
    else:
        file.write_text(float_labels(kind))
    manifest = read_manifests(file).train
    assert [item.label for item in items(manifest)] == [0, 2, 10, -1, 1]
    assert manifest.class_names == tuple(map(str, range(11)))


def test_a_column_that_is_ignored_may_hold_anything(tmp_path):
    rows = [{"path": f"{i}.mp4", "text": "x", "other": other} for i, other in enumerate([1, "b", [2], {"a": None}])]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_manifests(tmp_path / "l.jsonl").train) == 4
    table = pa.table({"path": ["0.mp4"], "other": [{"a": [1]}], "when": pa.array([1], pa.timestamp("ns"))})
    pyarrow.parquet.write_table(table, tmp_path / "l.parquet")
    assert len(read_manifests(tmp_path / "l.parquet").train) == 1


@pytest.mark.parametrize(
    "text",
    [
        "path,text\ra.mp4,a dog\rb.mp4,\r",
        "sep=;\r\npath;text\r\na.mp4;a dog\r\nb.mp4;\r\n",
        "path, text\na.mp4, a dog\nb.mp4, ''\n".replace("''", '""'),
        "\n\npath|text|\n\na.mp4|a dog|\n||\n   \nb.mp4||\n",
    ],
)
def test_csv_as_programs_write_it(tmp_path, text):
    (tmp_path / "l.csv").write_bytes(text.encode())
    listed = items(read_manifests(tmp_path / "l.csv").train)
    assert [(item.path.name, item.caption) for item in listed] == [("a.mp4", "a dog"), ("b.mp4", "")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", b'path,text\na.mp4,x\nb.mp4,"a dog\nc.mp4,x\n', r"row 2 \(line 3\): unexpected end of data"),
        ("l.csv", b'path,text\na.mp4,"a dog\nb.mp4,"a cat\nc.mp4,x\n', r"row 1 \(line 2\): ',' expected"),
        (
            "l.csv",
            b'path,text\na.mp4,"a dog\nb.mp4,a cat"\n',
            r"row 1 \(line 2\), with a cell of several lines .*'b\.mp4",
        ),
        ("l.csv", b"path,text\na.mp4,x\nb.mp4,a dog, running\n", r"row 2 \(line 3\) with 3 cells; expected 2"),
        ("l.csv", b"path,text\na.mp4,x\nb.m", r"row 2 \(line 3\) with 1 cells; expected 2"),
        ("l.csv", b"path,text\n\na.mp4,a \0dog\n", r"row 1 \(line 3\), column 'text', which holds a NUL"),
        ("l.csv", b"path,text,text\na.mp4,x,y\n", r"2 columns for the caption \(text, text\)"),
        ("l.csv", b"path,text\nnan,x\n", r"row 1 \(line 2\), column 'path', without a path"),
        ("l.csv", b"path,Class\na.mp4,0\nb.mp4,0.5\n", r"class '0\.5' in .*, row 2, column 'Class'; expected a whole"),
        ("l.csv", b"path,Split\na.mp4,train\nb.mp4,nan\n", r"split '' in .*; correct row 2, column 'Split'"),
        ("l.csv", "path,text\na.mp4,\u7ea2\n".encode("gbk"), r"byte 16 \(0xba, line 2\) is not UTF-8; .* gb18030"),
        ("l.csv", "path,text\na.mp4,x\n".encode("utf-16-le"), r"no column of paths among 'p\\x00a"),
        ("l.json", b'[{"path": "a.mp4"},\n{"path": "b.mp4"},]', r"row 3 \(line 2\), which cannot be read"),
        ("l.json", b'[{"path": "a.mp4"}\n{"path": "b.mp4"}]', r"row 1 \(line 1\), followed by no comma"),
        ("l.json", b'[{"path": "a.mp4"}] []', r"l\.json, which goes on after its \]"),
        ("l.json", b"[]", r"l\.json, which has no row"),
        ("l.jsonl", b'{"path": "a.mp4"}\n\n{"path": "b.mp4",}\n', r"row 2 \(line 3\), which cannot be read"),
        ("l.jsonl", b'{"path": "a.mp4"}\n["b.mp4"]\n', r"row 2 \(line 2\), which is no object"),
        ("l.jsonl", b'{"path": "a.mp4"} {"path": "b.mp4"}\n', r"row 1 \(line 1\), which goes on after its object"),
        ("l.jsonl", b'{"path": "a.mp4", "text": "x", "text": "y"}', r"row 1 \(line 1\), column 'text' twice"),
        ("l.jsonl", b'{"path": "a.mp4", "text": "\\ud83d"}', r"row 1 \(line 1\), column 'text', which holds half a"),
        (
            "l.jsonl",
            b'{"path": "a.mp4", "label": [1, 2]}',
            r"row 1 \(line 1\), column 'label', which holds \['1', '2'\]",
        ),
        ("l.jsonl", b'{"path": "a.mp4"}\n{"text": "x"}', r"row 2 \(line 2\) with no column of paths"),
        (
            "l.jsonl",
            b'{"path": "a", "text": "x"}\n{"path": "b", "cap": "y"}',
            r"row 2 \(line 2\) with 'cap' for the caption",
        ),
        ("l.jsonl", b'{"path": "a", "x": ' + b"[" * 99999, r"row 1 \(line 1\), which cannot be read"),
        ("l.csv.gz", gzip.compress(b"path\n" + bytes(range(48, 58)) * 999)[:-9], r"l\.csv\.gz, which cannot be read"),
        ("l.parquet", b"PAR1" + b"x" * 50, r"l\.parquet, which cannot be read"),
        ("l.parquet", b"", r"l\.parquet, which cannot be read"),
    ],
)
def test_malformed_lists_are_refused_in_a_line_that_names_the_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_manifests(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_cells_that_are_no_text_are_refused_by_row(tmp_path):
    file = tmp_path / "l.parquet"
    words = pa.StringArray.from_buffers(2, pa.array([0, 2, 4], pa.int32()).buffers()[1], pa.py_buffer(b"ok\xba\xec"))
    pyarrow.parquet.write_table(pa.Table.from_arrays([pa.array(["a", "b"]), words], ["path", "text"]), file)
    with pytest.raises(ValueError, match=r"l\.parquet, row 2, column 'text', which cannot be read: byte 0 \(0xba\)"):
        read_manifests(file)
    pyarrow.parquet.write_table(pa.table({"path": ["a"], "text": pa.array([1], pa.timestamp("ns"))}), file)
    with pytest.raises(ValueError, match=r"l\.parquet, row 1, column 'text', which"):
        read_manifests(file)
    pyarrow.parquet.write_table(pa.table({"video": [{"bytes": b"", "path": "a.mp4"}]}), file)
    with pytest.raises(ValueError, match=r"l\.parquet, row 1, column 'video', which holds \{'bytes'"):
        read_manifests(file)


def ucf101(folder, classes, train, test):
    folder.mkdir()
    for name, lines in (("classInd", classes), ("trainlist01", train), ("testlist01", test)):
        (folder / f"{name}.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    return folder


def test_ucf101_goes_by_the_numbers_of_the_classes(tmp_path):
    lists = ucf101(
        tmp_path / "l", "2 Wind\r\n1 Big Waves\r\n", "Wind/a b.avi 2\r\nBig Waves/c.avi 1\r\n", "Wind/d.avi\n"
    )
    train, held_out, _ = read_manifests(lists)
    assert train.class_names == ("Big Waves", "Wind")
    assert [(str(item.path.relative_to(tmp_path / "UCF-101")), item.label) for item in items(train)] == [
        ("Wind/a b.avi", 1),
        ("Big Waves/c.avi", 0),
    ]
    assert [item.label for item in items(held_out)] == [1]


@pytest.mark.parametrize(
    ("classes", "train", "message"),
    [
        ("1 Wind\n1 Waves\n", "Wind/a.avi 1\n", r"'1 Waves', row 2 of .*classInd\.txt"),
        ("Wind\n", "Wind/a.avi 1\n", r"'Wind', row 1 of .*classInd\.txt"),
        ("1 Wind\n", "Wind/a.avi 1\nWind/b.avi 2\n", r"'Wind/b\.avi 2', row 2 of .*trainlist01\.txt"),
        ("1 Wind\n", "Waves/a.avi\n", r"'Waves/a\.avi', row 1 of .*trainlist01\.txt"),
    ],
)
def test_malformed_lists_of_ucf101_are_refused_by_row(tmp_path, classes, train, message):
    with pytest.raises(ValueError, match=message):
        read_manifests(ucf101(tmp_path / "l", classes, train, ""))
