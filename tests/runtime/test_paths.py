"""One reading of every path: homes, variables, urls, odd names, unicode forms."""

import os
import unicodedata

import pytest

from flexivid.runtime.paths import Names, cache_folder, expand, is_hidden, is_remote, resolve

NFC = unicodedata.normalize("NFC", "cafe\u0301")
NFD = unicodedata.normalize("NFD", NFC)
ODD = [
    "2024::trip",
    "[set] 1",
    "50% off",
    "a#b",
    "a?b*",
    "{0..3}",
    "-f",
    "it's",
    'a"b',
    "a\nb",
    "a;b",
    "a=b",
    "a:b",
    "~a",
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("exists", [False, True])
def test_a_name_is_a_name_whatever_is_in_it(home, name, exists):
    if exists:
        (home / name).mkdir()
    for path in (f"{home}/{name}", f"./{name}", f"{home}/{name}/", f"{home}//{name}/./"):
        assert not is_remote(path)
        assert os.path.abspath(resolve(path)) == f"{home}/{name}"


def test_homes_and_variables(home):
    for path in ("~/data/v", "$DATA/v", "${DATA}/v/", "$HOME/data//v", f"file://{home}/data/v", f"file:{home}/data/v"):
        assert resolve(path) == f"{home}/data/v"
    assert resolve("./~/data") == "./~/data"
    (home / "a$DATA").mkdir()
    assert resolve("a$DATA") == "a$DATA"  # what exists as it is written is meant
    assert resolve("price$5") == "price$5"
    with pytest.raises(ValueError, match=r"got \$NOWHERE/v, but no variable NOWHERE; expected it to be set; set it"):
        resolve("$NOWHERE/v")


@pytest.mark.parametrize("path", ["", " ", "\t"])
def test_an_empty_path_is_not_the_current_folder(path):
    with pytest.raises(ValueError, match="got an empty path; expected a file"):
        resolve(path)
    with pytest.raises(ValueError, match="null character"):
        resolve("a\0b")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("S3://bucket/A b/", "s3://bucket/A b"),
        ("https://host/v/?a=b", "https://host/v/?a=b"),
        ("HTTPS://host/v/", "https://host/v/"),
        ("simplecache::s3://bucket/v", "simplecache::s3://bucket/v"),
        ("zip://v.mp4::s3://bucket/v.zip", "zip://v.mp4::s3://bucket/v.zip"),
        ("memory://v//w", "memory://v//w"),
    ],
)
def test_urls(path, meant):
    assert is_remote(path)
    assert resolve(path) == meant


def test_percent_signs_of_file_urls(home):
    (home / "my trip").mkdir()
    (home / "50%20").mkdir()
    assert resolve(f"file://{home}/my%20trip") == f"{home}/my trip"
    assert resolve(f"file://localhost{home}/50%20") == f"{home}/50%20"


@pytest.mark.parametrize(("on_disk", "written"), [(NFC, NFD), (NFD, NFC)])
def test_unicode_forms(home, on_disk, written):
    (home / on_disk / on_disk).mkdir(parents=True)
    assert resolve(f"{home}/{written}/{on_disk}") == f"{home}/{on_disk}/{on_disk}"
    assert resolve(f"{home}/{written}/new") == f"{home}/{on_disk}/new"  # an output
    assert resolve(f"{home}/{written}x") == f"{home}/{written}x"


def test_two_unicode_forms_are_two_files(home):
    (home / NFC).touch()
    (home / NFD).touch()
    assert [Names().existing(f"{home}/{name}") for name in (NFC, NFD)] == [f"{home}/{NFC}", f"{home}/{NFD}"]


def test_links_stay(home):
    (home / "real" / "deep").mkdir(parents=True)
    (home / "link").symlink_to(home / "real" / "deep")
    assert os.path.samefile(resolve("link/.."), home / "real")  # not the folder of the link
    assert resolve(f"{home}/link/") == f"{home}/link"


def test_twice_is_once(home):
    for path in [*ODD, "~/a", "$DATA/b", "s3://a/b", f"file://{home}/a%20b", "a/../b"]:
        assert resolve(resolve(path)) == resolve(path)
        assert expand(expand(path)) == expand(path)


def test_caches_lie_where_the_variable_says(home, monkeypatch):
    monkeypatch.setenv("FLEXIVID_CACHE", "~/cache")
    assert cache_folder("index") == home / "cache" / "index"
    monkeypatch.setenv("FLEXIVID_CACHE", "")
    assert cache_folder("index") == home / ".cache" / "flexivid" / "index"


def test_hidden():
    hidden = ["._a.mp4", ".DS_Store", "a/.git/b.mp4", "__MACOSX/a.mp4", "a/@eaDir/a.mp4", "Thumbs.db", "$RECYCLE.BIN/a"]
    assert all(map(is_hidden, hidden))
    assert not any(map(is_hidden, ["a.mp4", "./a.mp4", "../a.mp4", "a..mp4", "MACOSX/a.mp4", "_a.mp4"]))
