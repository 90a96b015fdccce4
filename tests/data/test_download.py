"""A download resumes where it stopped, is whole and checked or not there at all; archives stay in their folder."""

import hashlib
import io
import os
import stat
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from flexivid.data.storage import archives
from flexivid.data.storage.archives import archive_kind, extract
from flexivid.data.storage.download import DownloadError, digest, download

from .serving import serve

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site():
    with serve({"films.zip": CONTENT}) as site:
        yield site


def fetch(site, path, **options):
    return download(f"{site.url}/films.zip", path, pause_seconds=0, progress=False, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fetches_once(site, tmp_path):
    path = tmp_path / "new" / "films.zip"
    assert fetch(site, path, checksum=SHA256)
    assert not fetch(site, path, checksum="md5:" + hashlib.md5(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["films.zip"]
    assert site.requests == [None]


def test_broken_connections_resume_without_fetching_anything_twice(site, tmp_path):
    site.cut = 70_000
    assert fetch(site, tmp_path / "films.zip", checksum=SHA256)
    assert site.requests == [None, *(f"bytes={n}-" for n in (70_000, 140_000, 210_000, 280_000))]


def test_an_interrupted_program_resumes(site, tmp_path):
    site.cut = 100_000
    with pytest.raises(DownloadError, match=r"100000 bytes are kept.*start again later"):
        fetch(site, tmp_path / "films.zip", attempts=1)
    assert names(tmp_path) == ["films.zip.part", "films.zip.part.tag"]
    site.cut = None
    assert fetch(site, tmp_path / "films.zip")
    assert site.requests[-1] == "bytes=100000-"
    assert (tmp_path / "films.zip").read_bytes() == CONTENT


def test_a_changed_file_starts_again(site, tmp_path):
    site.cut = 100_000
    with pytest.raises(DownloadError):
        fetch(site, tmp_path / "films.zip", attempts=1)
    site.cut, site.tag, site.files["films.zip"] = None, '"two"', CONTENT[::-1]
    assert fetch(site, tmp_path / "films.zip")
    assert (tmp_path / "films.zip").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("checksum", ["", SHA256])
def test_without_a_tag_only_a_checksum_allows_to_resume(site, tmp_path, checksum):
    (tmp_path / "films.zip.part").write_bytes(CONTENT[:1000])
    site.tag = ""
    assert fetch(site, tmp_path / "films.zip", checksum=checksum)
    assert (tmp_path / "films.zip").read_bytes() == CONTENT
    assert site.requests == ["bytes=1000-" if checksum else None]


def test_a_part_that_is_whole_or_too_long(site, tmp_path):
    for name, part in (("whole", CONTENT), ("long", CONTENT + b"more")):
        (tmp_path / f"{name}.part").write_bytes(part)
        assert fetch(site, tmp_path / name, checksum=SHA256)
        assert (tmp_path / name).read_bytes() == CONTENT


def test_corrupt_downloads_are_refused_and_not_resumed(site, tmp_path):
    site.files["films.zip"] = CONTENT[:-1] + b"!"
    with pytest.raises(DownloadError, match=f"expected {SHA256[7:]}; start again"):
        fetch(site, tmp_path / "films.zip", checksum=SHA256)
    assert names(tmp_path) == []
    site.files["films.zip"] = CONTENT
    assert fetch(site, tmp_path / "films.zip", checksum=SHA256)
    (tmp_path / "films.zip").write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="remove the file"):
        fetch(site, tmp_path / "films.zip", checksum=SHA256)


def test_busy_servers_are_asked_again_and_absent_files_are_not(site, tmp_path):
    site.statuses = [503, 429, 500]
    assert fetch(site, tmp_path / "films.zip")
    assert len(site.requests) == 4
    with pytest.raises(DownloadError, match=r"got status 404 .*nothing.zip; .*save it as"):
        download(f"{site.url}/nothing.zip", tmp_path / "nothing.zip", pause_seconds=0, progress=False)
    assert len(site.requests) == 5
    site.statuses = [503] * 3
    with pytest.raises(DownloadError, match="got status 503"):
        fetch(site, tmp_path / "other.zip", attempts=3)


def test_offline_says_so(tmp_path):
    with serve({}) as gone:
        pass
    with pytest.raises(DownloadError, match=r"got no complete answer from http.*refused.*save it as"):
        fetch(gone, tmp_path / "films.zip", attempts=2)
    assert names(tmp_path) == []


def test_a_web_page_is_no_archive(site, tmp_path):
    site.content_type = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="got a web page"):
        fetch(site, tmp_path / "films.zip")
    assert names(tmp_path) == []


@pytest.mark.parametrize("checksum", ["md5:12", "crc:0", "0" * 64])
def test_odd_checksums_are_refused(tmp_path, checksum):
    with pytest.raises(ValueError, match="expected sha256:<64 digits>"):
        download("http://127.0.0.1/a", tmp_path / "a", checksum=checksum)


def test_shows_a_bar(site, tmp_path, capsys):
    download(f"{site.url}/films.zip", tmp_path / "films.zip")
    assert "films.zip" in capsys.readouterr().err
    assert digest(tmp_path / "films.zip") == SHA256[7:]


def pack(path, members):
    """A zip or tar, by the name, of (name, content or None for a link to /)."""
    if ".zip" in path.name:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members:
                info = zipfile.ZipInfo(name)
                info.external_attr = ((stat.S_IFLNK if content is None else stat.S_IFREG) | 0o644) << 16
                archive.writestr(info, content or "/")
        return path
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/"
            archive.addfile(info, io.BytesIO(content or b""))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_unpacks_whole_and_once(tmp_path, name):
    archive = pack(tmp_path / name, [("waves/1.mp4", b"one"), ("2.mp4", b"two")])
    assert extract(archive, tmp_path / "out", progress=False)
    assert not extract(archive, tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "waves" / "1.mp4").read_bytes() == b"one"
    assert names(tmp_path) == [name, "out"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil", "link"])
def test_nothing_leaves_the_folder(tmp_path, kind, name):
    archive = pack(tmp_path / f"a.{kind}", [("good", b"-"), (name, None if name == "link" else b"evil")])
    with pytest.raises(ValueError, match="do not trust this archive"):
        extract(archive, tmp_path / "out", progress=False)
    assert names(tmp_path) == [f"a.{kind}"]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_only_files_and_folders_are_unpacked(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("inside")
        info.type, info.linkname = kind, "1.mp4"
        archive.addfile(info)
    with pytest.raises(ValueError, match="do not trust this archive"):
        extract(tmp_path / "a.tar", tmp_path / "out", progress=False)
    assert names(tmp_path) == ["a.tar"]


def test_archives_that_hold_too_much_are_refused_before_they_do(tmp_path, monkeypatch):
    zeros = bytes(1 << 20)
    for name in ("a.zip", "a.tar.gz"):
        with monkeypatch.context() as patch:
            patch.setattr(archives, "BOMB_BYTES", 1 << 20)
            if name == "a.zip":
                with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
                    archive.writestr("1", zeros)
                    archive.writestr("2", zeros)
            else:
                pack(tmp_path / name, [("1", zeros), ("2", zeros)])
            with pytest.raises(ValueError, match=r"with 2097152 bytes or more, \d{3} times its own size; expected"):
                extract(tmp_path / name, tmp_path / "out", progress=False)
            patch.setattr(archives, "MAX_FILES", 1)
            with pytest.raises(ValueError, match="with more than 1 files"):
                extract(tmp_path / name, tmp_path / "out", progress=False)
        with monkeypatch.context() as patch:
            patch.setattr(archives, "FREE_BYTES", 1 << 60)
            with pytest.raises(ValueError, match=r"expected at most 0\.0, which is free on the disk; make room"):
                extract(tmp_path / name, tmp_path / "out", progress=False)
        assert extract(tmp_path / name, tmp_path / f"{name}.out", progress=False)  # small ones are no bombs
    assert names(tmp_path) == ["a.tar.gz", "a.tar.gz.out", "a.zip", "a.zip.out"]


def test_a_zip_that_wants_a_password_is_refused_in_a_line(tmp_path):
    archive = pack(tmp_path / "a.zip", [("1.mp4", b"one")])
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # encrypted, in the local header and in the directory
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="expected a whole archive"):
        extract(archive, tmp_path / "out", progress=False)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_damaged_archives_are_refused(tmp_path, name):
    archive = pack(tmp_path / name, [("1.mp4", CONTENT)])
    damaged = bytearray(archive.read_bytes())
    damaged[5000:5100] = bytes(100)
    archive.write_bytes(damaged[: None if name == "a.zip" else 100_000])
    with pytest.raises(ValueError, match="expected a whole archive"):
        extract(archive, tmp_path / "out", progress=False)
    assert names(tmp_path) == [name]
    archive.write_bytes(b"<html>no archive</html>")
    with pytest.raises(ValueError, match="expected a zip, tar or rar"):
        archive_kind(archive)


def fake_program(folder, name, code):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\nimport os, pathlib, sys\n{code}\n")
    (folder / name).chmod(0o755)


def test_a_rar_needs_a_program(tmp_path, monkeypatch):
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x00")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(FileNotFoundError, match=r"expected one of unrar, bsdtar.*apt-get install libarchive-tools"):
        extract(tmp_path / "a.rar", tmp_path / "out", progress=False)
    fake_program(
        tmp_path / "bin", "unrar", "(pathlib.Path(sys.argv[-1]) / 'v.avi').write_text(' '.join(sys.argv[1:-1]))"
    )
    assert extract(tmp_path / "a.rar", tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "v.avi").read_text() == f"x -o+ -idq {tmp_path / 'a.rar'}"
    fake_program(tmp_path / "bin", "unrar", "sys.exit('checksum error')")
    with pytest.raises(ValueError, match="unrar fails: checksum error"):
        extract(tmp_path / "a.rar", tmp_path / "bad", progress=False)
    fake_program(tmp_path / "bin", "unrar", "os.symlink('/', sys.argv[-1] + 'link')")
    with pytest.raises(ValueError, match="do not trust"):
        extract(tmp_path / "a.rar", tmp_path / "bad", progress=False)
    assert not os.path.exists(tmp_path / "bad")
