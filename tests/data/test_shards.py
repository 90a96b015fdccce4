"""A store gives back what was put in, to the byte, at random; litdata reads the same; order and state are exact."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from flexivid.data.clips.sampler import StepBatchSampler
from flexivid.data.sources.shard_writer import sources_of, write_shards
from flexivid.data.sources.shards import chunk_rows, class_names, is_shards, shard_rows
from flexivid.data.storage.byte_range import ByteRange, is_byte_range, parse_byte_range, read_bytes
from flexivid.data.storage.errors import VideoError

from .serving import serve

needs_litdata = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import litdata"], capture_output=True).returncode != 0,
    reason="litdata is not installed; pip install litdata",
)


@pytest.fixture
def sources(tmp_path):
    """Forty files of random length, an empty one among them."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "files"
    folder.mkdir()
    rows = []
    for i in range(40):
        (folder / f"{i}.mp4").write_bytes(rng.bytes(0 if i == 7 else int(rng.integers(1, 3000))))
        rows.append((str(folder / f"{i}.mp4"), i % 3 - 1, f"caption {i} \u00e9", rng.bytes(i)))
    return rows


def fill_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_what_goes_in_comes_out(sources, tmp_path):
    report = write_shards(sources, tmp_path / "store", chunk_bytes=10_000, class_names=("a", "b"), progress=False)
    rows = list(shard_rows(tmp_path / "store"))
    assert is_shards(tmp_path / "store")
    assert (report.num_videos, report.bad) == (40, ())
    assert report.num_chunks == len(list((tmp_path / "store").glob("chunk-*.bin"))) > 3
    assert report.num_bytes == sum(path.stat().st_size for path in (tmp_path / "store").glob("chunk-*.bin"))
    assert [(row.key, row.label, row.caption, row.info) for row in rows] == sources
    assert class_names(tmp_path / "store") == ("a", "b")
    for number in np.random.default_rng(1).permutation(40):
        assert read_bytes(rows[number].path) == Path(sources[number][0]).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "store"]  # nothing temporary is left


@needs_litdata
def test_litdata_itself_reads_the_store(sources, tmp_path):
    from litdata import StreamingDataset

    write_shards(sources, tmp_path / "store", chunk_bytes=10_000, progress=False)
    dataset = StreamingDataset(str(tmp_path / "store"))
    assert len(dataset) == 40
    for number in (39, 0, 7, 21):
        record, info, video = dataset[number]
        path, label, caption, kept = sources[number]
        assert json.loads(bytes(record)) == {"key": path, "label": label, "caption": caption}
        assert (bytes(info), bytes(video)) == (kept, Path(path).read_bytes())


def test_store_may_move_and_may_lose_its_listing(sources, tmp_path):
    write_shards(sources, tmp_path / "store", chunk_bytes=10_000, progress=False)
    (tmp_path / "store").rename(tmp_path / "moved #1")
    listed = list(shard_rows(tmp_path / "moved #1"))
    (tmp_path / "moved #1" / "rows.jsonl.gz").unlink()
    assert list(shard_rows(tmp_path / "moved #1")) == listed
    assert read_bytes(listed[3].path) == Path(sources[3][0]).read_bytes()


def test_remote_store_equals_the_local_one(sources, tmp_path):
    write_shards(sources, tmp_path / "store", chunk_bytes=10_000, progress=False)
    write_shards(sources, "memory://bucket/store", chunk_bytes=10_000, progress=False)
    local, remote = list(shard_rows(tmp_path / "store")), list(shard_rows("memory://bucket/store/"))
    assert is_shards("memory://bucket/store")
    assert not is_shards("memory://bucket/nothing")
    assert [row[1:] for row in local] == [row[1:] for row in remote]
    assert [read_bytes(row.path) for row in local] == [read_bytes(row.path) for row in remote]
    with pytest.raises(ValueError, match="which is in use"):
        write_shards(sources, "memory://bucket/store", progress=False)


def test_unreadable_files_are_reported_and_left_out(sources, tmp_path):
    gone = (str(tmp_path / "gone.mp4"), 0, "", b"")
    report = write_shards([gone, *sources[:2], gone], tmp_path / "store", progress=False)
    assert report.num_videos == len(list(shard_rows(tmp_path / "store"))) == 2
    assert report.bad == ((gone[0], "cannot be read: No such file or directory"),) * 2
    with pytest.raises(ValueError, match="no video that can be read"):
        write_shards([gone], tmp_path / "other", progress=False)


def test_shards_can_be_made_from_shards_and_from_an_index(sources, tmp_path):
    class Index:
        label = np.array([row[1] for row in sources], np.int32)

        def __len__(self):
            return len(sources)

        path, facts = (lambda self, i, place=place: sources[i][place] for place in (0, 3))

        def captions(self, i):
            return (sources[i][2],)

    write_shards(sources_of(Index()), tmp_path / "one", progress=False)
    again = [(row.path, row.label, row.caption, row.info) for row in shard_rows(tmp_path / "one")]
    write_shards(again, tmp_path / "two", chunk_bytes=5_000, progress=False)
    assert [read_bytes(row.path) for row in shard_rows(tmp_path / "two")] == [read_bytes(row[0]) for row in sources]


def test_folders_in_use_and_stores_cut_short_are_refused(sources, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("important")
    with pytest.raises(ValueError, match="which is in use"):
        write_shards(sources, tmp_path / "used", progress=False)

    def interrupted():
        yield from sources[:30]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(interrupted(), tmp_path / "short", chunk_bytes=10_000, progress=False)
    assert not is_shards(tmp_path / "short")
    with pytest.raises(ValueError, match="holds no shards"):
        list(shard_rows(tmp_path / "short"))


@needs_litdata
def test_other_litdata_stores_are_refused(tmp_path):
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(tmp_path / "other"), chunk_bytes=1000)
    writer[0] = [b"a", 5]
    writer.done()
    writer.merge(1)
    with pytest.raises(ValueError, match="a litdata store of"):
        list(shard_rows(tmp_path / "other"))


def test_a_truncated_shard_is_a_bad_video(sources, tmp_path):
    write_shards(sources, tmp_path / "store", progress=False)
    rows = list(shard_rows(tmp_path / "store"))
    chunk = tmp_path / "store" / "chunk-0-0.bin"
    os.truncate(chunk, chunk.stat().st_size - 10)
    assert read_bytes(rows[0].path) == Path(sources[0][0]).read_bytes()
    with pytest.raises(VideoError, match="the shard ends early"):
        read_bytes(rows[-1].path)
    chunk.unlink()
    with pytest.raises(VideoError, match="No such file"):
        read_bytes(rows[0].path)


def test_tars_are_read_as_webdataset_does(tmp_path):
    one = [("a/x.mp4", b"first"), ("a/x.txt", b"the sea\n"), ("a/x.cls", b"3"), ("a/readme", b"-"), ("b/x.MP4", b"2nd")]
    two = [
        ("y.json", b'{"caption": "wind", "label": 5}'),
        ("y.webm", b"third"),
        ("z.txt", b"no video"),
        ("w.left.mov", b"4"),
    ]
    fill_tar(tmp_path / "films-0.tar", one)
    fill_tar(tmp_path / "films-1.tar", two)
    rows = list(shard_rows(tmp_path))
    assert [row[1:4] for row in rows] == [
        ("a/x.mp4", 3, "the sea"),
        ("b/x.MP4", -1, ""),
        ("y.webm", 5, "wind"),
        ("w.left.mov", -1, ""),
    ]
    assert [read_bytes(row.path) for row in rows] == [b"first", b"2nd", b"third", b"4"]
    for pattern in ("films-{0..1}.tar", "films-*.tar"):
        assert list(shard_rows(str(tmp_path / pattern))) == rows
    assert list(shard_rows(tmp_path / "films-1.tar")) == rows[2:]


def test_long_names_in_tars(tmp_path):
    name = "/".join(["folder" * 10] * 5) + "/x.mp4"
    rows = list(shard_rows(fill_tar(tmp_path / "a.tar", [(name, b"long"), ("b.mp4", b"short")])))
    assert [(row.key, read_bytes(row.path)) for row in rows] == [(name, b"long"), ("b.mp4", b"short")]


def test_remote_tars(tmp_path):
    import fsspec

    local = fill_tar(tmp_path / "a.tar", [(f"{i}.mp4", bytes([i]) * 1000) for i in range(50)])
    with fsspec.open("memory://tars/a.tar", "wb") as stream:
        stream.write(local.read_bytes())
    for url in ("memory://tars/a.tar", "memory://tars", "memory://tars/*.tar"):
        assert [read_bytes(row.path) for row in shard_rows(url)] == [bytes([i]) * 1000 for i in range(50)]


@pytest.mark.parametrize("kind", ["gzip", "cut", "json", "label", "pattern"])
def test_bad_tars_are_refused_by_name(tmp_path, kind):
    path = fill_tar(tmp_path / "bad.tar", [("a.mp4", b"x" * 5000), ("b.mp4", b"y" * 5000)])
    if kind == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    elif kind == "cut":
        os.truncate(path, 700)
    elif kind == "json":
        fill_tar(path, [("a.mp4", b"x"), ("a.json", b"{")])
    elif kind == "label":
        fill_tar(path, [("a.mp4", b"x"), ("a.cls", b"waves")])
    else:
        path = tmp_path / "none-*.tar"
    with pytest.raises(ValueError, match=path.name.replace("*", r"\*")):
        list(shard_rows(path))


def test_ranges_over_http_fetch_only_what_they_need():
    with serve({"c.bin": bytes(range(256))}) as site:
        assert read_bytes(ByteRange(f"{site.url}/c.bin", 5, 4).path) == bytes([5, 6, 7, 8])
        assert site.requests == ["bytes=5-8"]
        with pytest.raises(VideoError, match="cannot be read"):
            read_bytes(ByteRange(f"{site.url}/gone.bin", 5, 4).path)


def test_byte_ranges_are_plain_text():
    where = ByteRange("https://host/a b.tar?x=#1", 5, 10)
    assert is_byte_range(where.path)
    assert parse_byte_range(where.path) == where
    for path in ("films.mp4", "shard:a.tar#5", "shard:a.tar", "shard:#1+1", "shard:a#-1+5"):
        with pytest.raises(ValueError, match="expected shard:"):
            parse_byte_range(path)


class Keys(Dataset):
    """The videos of a store, as (epoch, first bytes)."""

    def __init__(self, rows):
        self.paths = [row.path for row in rows]

    def __getitem__(self, address):
        clip, epoch = address
        return epoch, read_bytes(self.paths[clip])


def stream(rows, *, rank=0, world_size=1, workers=0, start=0, steps):
    sampler = StepBatchSampler(
        len(rows), lambda step: 2, seed=3, rank=rank, world_size=world_size, start_step=start, num_steps=steps
    )
    loader = DataLoader(Keys(rows), batch_sampler=sampler, num_workers=workers, collate_fn=list)
    return [sample for batch in loader for sample in batch]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_ranks_share_an_epoch_of_shards_exactly_and_resume_in_its_middle(sources, tmp_path, workers):
    sources = [row for row in sources if os.path.getsize(row[0])]  # 39 videos with bytes of their own
    write_shards(sources, tmp_path / "store", chunk_bytes=10_000, progress=False)
    rows = list(shard_rows(tmp_path / "store"))
    ranks = [stream(rows, rank=rank, world_size=2, workers=workers, steps=20) for rank in range(2)]
    epoch = [video for rank in ranks for number, video in rank if number == 0]
    assert len(epoch) == 39
    assert sorted(epoch) == sorted(Path(row[0]).read_bytes() for row in sources)
    assert ranks[0] == stream(rows, rank=0, world_size=2, workers=0, steps=20)
    assert ranks[1][8:] == stream(rows, rank=1, world_size=2, workers=workers, start=4, steps=16)


def test_who_decodes_loads_neither_litdata_nor_torch():
    code = "import flexivid.data.storage.byte_range, sys; print({'torch', 'litdata', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_chunks_list_themselves(sources, tmp_path):
    write_shards(sources, tmp_path / "store", chunk_bytes=10_000, progress=False)
    found = [row for chunk in sorted((tmp_path / "store").glob("*.bin")) for row in chunk_rows(str(chunk))]
    assert sorted(found) == sorted(shard_rows(tmp_path / "store"))
