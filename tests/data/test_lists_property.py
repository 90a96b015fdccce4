"""Random lists, side-cars and tars, written from what they mean, are read back as that, or refused by name."""

import csv
import gzip
import io
import json
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from flexivid.data.lists.cells import captions_of, is_missing, is_number, unpack, written  # noqa: E402
from flexivid.data.sources.manifest import read_manifests  # noqa: E402

from .listed import items, scan  # noqa: E402

NOTHING = ["", "nan", "NaN", "NA", "N/A", "<NA>", "null", "NULL", "None"]  # what pandas and others write
MARKED = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
    "utf-32-be": b"\0\0\xfe\xff",
}
ALIKE = {"path": ["path", "Video", "video_path", " file_name "], "caption": ["text", "Caption", "prompt"]}
QUICK = settings(max_examples=60, deadline=None, derandomize=True)

letters = st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs"])


def means_itself(text):
    return text == text.strip() and not is_missing(text) and not text.startswith("[")


texts = st.text(letters, min_size=1, max_size=12).map(str.strip).filter(means_itself)
names = texts.filter(lambda text: not is_number(text))
paths = st.text(st.characters(exclude_characters="\0\ufeff\r\n/", exclude_categories=["Cs"]), min_size=1, max_size=8)
paths = paths.filter(lambda path: not is_missing(path) and not path.startswith(".")).map(lambda path: f"{path}.mp4")


@st.composite
def collections(draw):
    """Rows of (path, class or None, captions), whose classes are all names or all numbers."""
    classes = draw(st.sampled_from([names, st.integers(0, 40)]))
    row = st.tuples(paths, st.none() | classes, st.lists(texts, max_size=3))
    rows = draw(st.lists(row, min_size=1, max_size=6))
    return rows if any(label is not None for _, label, _ in rows) else [(*rows[0][:1], 1, rows[0][2]), *rows[1:]]


def meaning(rows):
    """What a reader must find: (path, class number, captions), and the classes; written without the product."""
    labels = [label for _, label, _ in rows if label is not None]
    numbers = all(isinstance(label, int) for label in labels)
    classes = [str(i) for i in range(max(labels) + 1)] if numbers else sorted(set(labels))
    index = {label: classes.index(str(label)) for label in labels}
    found = [(path, -1 if label is None else index[label], tuple(captions) or ("",)) for path, label, captions in rows]
    return found, tuple(classes)


def read(place):
    manifest = read_manifests(place).train
    columns = zip(*(manifest.table[name].to_pylist() for name in ("path", "label", "caption")), strict=True)
    folder = f"{place.parent}/"
    return [(path.removeprefix(folder), label, unpack(text)) for path, label, text in columns], manifest.class_names


def refusal(place):
    try:
        read(place)
    except ValueError as error:
        return str(error)
    return None


def number_forms(draw, label):
    return draw(st.sampled_from([label, float(label), str(label), f"{label}.0"])) if isinstance(label, int) else label


def as_text(draw, rows, header, delimiter):
    """CSV as spreadsheets and programs write it."""
    sink = io.StringIO(newline="")
    words = [word for _, label, captions in rows for word in (str(label), *captions)]
    bare = any(end in word for word in words for end in "\r\n")  # Python before 3.13 quotes only its own line end
    quoting = csv.QUOTE_ALL if bare else draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    writer = csv.writer(
        sink, delimiter=delimiter, quoting=quoting, lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"]))
    )
    writer.writerow([*header, "ignored"])
    for path, label, captions in rows:
        nothing = draw(st.sampled_from(NOTHING))
        label = nothing if label is None else str(number_forms(draw, label))
        words = str(captions) if len(captions) > 1 and draw(st.booleans()) else written(captions or [nothing])
        if captions and len(captions) > 1 and not words.startswith("["):
            words = json.dumps(captions)
        writer.writerow([path, label, words, draw(st.sampled_from(["1", "high", "", "[2, {"]))])
        if draw(st.booleans()):
            sink.write(draw(st.sampled_from(["\n", "\r\n", f"{delimiter * 3}\n"])))
    return sink.getvalue()


def as_objects(draw, rows, header):
    """Rows for JSON, whose ignored column changes its type."""
    objects = []
    for path, label, captions in rows:
        nothing = draw(st.sampled_from([None, float("nan"), *NOTHING]))
        words = nothing if not captions else captions[0] if len(captions) == 1 and draw(st.booleans()) else captions
        cells = (path, nothing if label is None else number_forms(draw, label), words)
        ignored = draw(st.sampled_from([1, "high", None, [1, {"a": 2}], {"text": 1}]))
        objects.append({**dict(zip(header, cells, strict=True)), "ignored": ignored})
    return objects


def as_parquet(draw, rows, header):
    labels = [label for _, label, _ in rows]
    numbers = all(isinstance(label, int | None) for label in labels)
    labels = [None if label is None else float(label) for label in labels] if numbers else labels
    path, label = pa.array([row[0] for row in rows]), pa.array(labels)
    if draw(st.booleans()):
        path, label = path.dictionary_encode(), label.dictionary_encode()
    if draw(st.booleans()):
        path = path.cast(pa.large_string())
    captions = pa.array([row[2] or None for row in rows], pa.list_(pa.string()))
    ignored = pa.array([{"a": [i]} for i in range(len(rows))])
    sink = io.BytesIO()
    table = pa.Table.from_arrays([path, label, captions, ignored], [*header, "ignored"])
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


@st.composite
def lists(draw):
    """A collection, the ending of its list and the bytes in it."""
    rows, kind = draw(collections()), draw(st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet"]))
    header = [draw(st.sampled_from(ALIKE["path"])), draw(st.sampled_from(["label", "Class"]))]
    header.append(draw(st.sampled_from(ALIKE["caption"])))
    if kind == "parquet":
        return rows, kind, as_parquet(draw, rows, header)
    if kind in ("csv", "tsv"):
        text = as_text(draw, rows, header, "\t" if kind == "tsv" else draw(st.sampled_from([",", ";", "\t", "|"])))
    elif kind == "json":
        text = json.dumps(as_objects(draw, rows, header), ensure_ascii=draw(st.booleans()), indent=draw(st.none()))
    else:
        ends = st.sampled_from(["\n", "\r\n", "\n\n", "\r"])
        plain = draw(st.booleans())
        text = "".join(json.dumps(row, ensure_ascii=plain) + draw(ends) for row in as_objects(draw, rows, header))
    encoding = draw(st.sampled_from(sorted(MARKED)))
    data = MARKED[encoding] + text.encode(encoding)
    return (rows, f"{kind}.gz", gzip.compress(data)) if draw(st.booleans()) else (rows, kind, data)


@QUICK
@given(lists())
@pytest.mark.filterwarnings("ignore:got .* rows whose class is a word for nothing")
def test_a_list_says_what_was_meant(case):
    rows, kind, data = case
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, f"l.{kind}")
        place.write_bytes(data)
        for path, _, _ in rows:
            Path(folder, path).touch()  # a backslash parts folders where no file has it in its name
        assert read(place) == meaning(rows)


@QUICK
@given(lists(), st.data())
@pytest.mark.filterwarnings("ignore:got .* rows whose class is a word for nothing")
def test_a_damaged_list_is_read_or_refused_in_one_line_that_names_it(case, data):
    _, kind, content = case
    at = data.draw(st.integers(0, len(content)))
    byte = data.draw(st.binary(max_size=2))
    content = content[:at] + byte + content[at + data.draw(st.integers(0, 3)) :]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, f"l.{kind}")
        place.write_bytes(content)
        fault = refusal(place)
        assert fault is None or str(place) in fault
        assert fault is None or "\n" not in fault
        assert fault is None or fault.count("; ") >= 2  # got X; expected Y; do Z


@st.composite
def encoded_texts(draw):
    """What a text file says, and its bytes: None where they are neither UTF-8 nor marked."""
    text = draw(texts | st.sampled_from(["\u7ea2\u8272\u7684\u6c7d\u8f66", "caf\xe9", "a dog"]))
    encoding = draw(st.sampled_from([*MARKED, "gbk", "latin-1", "shift_jis"]))
    if encoding in MARKED:
        return text, MARKED[encoding] + f" {text}\r\n".encode(encoding)
    data = text.encode(encoding, errors="ignore")
    try:
        found = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None, data
    return ("" if is_missing(found) else found), data


@QUICK
@given(st.lists(encoded_texts().filter(lambda pair: pair[0] is None or not pair[0].startswith("[")), max_size=4))
def test_side_cars_and_tars_say_what_was_meant(captions):
    with tempfile.TemporaryDirectory() as name:
        folder, tar = Path(name, "videos"), Path(name, "a.tar")
        folder.mkdir()
        with tarfile.open(tar, "w") as archive:
            for number, (_, data) in enumerate([(None, None), *captions]):
                for ending, content in (("mp4", b"video"), ("txt", data)):
                    if content is not None:
                        (folder / f"{number}.{ending}").write_bytes(content)
                        for member, payload in ((f"._{number}.{ending}", b"\0\5"), (f"{number}.{ending}", content)):
                            header = tarfile.TarInfo(member)
                            header.size = len(payload)
                            archive.addfile(header, io.BytesIO(payload))
        refused = [f"{number}.txt" for number, (text, _) in enumerate(captions, 1) if text is None]
        for place in (folder, tar):
            if refused:
                with pytest.raises(ValueError, match=rf"{refused[0]}.*is not UTF-8.*; save it as UTF-8"):
                    [item.caption for item in items(scan(place))]
            else:
                assert [item.caption for item in items(scan(place))] == ["", *(text for text, _ in captions)]


@QUICK
@given(st.lists(st.text(letters, max_size=8).map(str.strip).filter(lambda text: not is_missing(text)), max_size=3))
def test_captions_are_read_back_from_the_cell_that_is_written(captions):
    assert unpack(captions_of(written(captions or [""])) or "") == (tuple(captions) or ("",))
