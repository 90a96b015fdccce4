"""Weights are found in the order that is promised; without any, all ways to get them are told."""

import shutil

import numpy as np
import pytest
from safetensors.torch import save_file

from flexivid.metrics.extractors import i3d_weights
from flexivid.metrics.extractors.i3d_checkpoint import DATA_FILE
from flexivid.metrics.extractors.i3d_weights import URL, fetch_weights, find_weights, load_i3d
from flexivid.runtime.paths import cache_folder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLEXIVID_I3D", raising=False)
    cache_folder("i3d").mkdir(parents=True)


def touch(path):
    path.write_bytes(b"-")
    return path


def test_the_order_of_places(tmp_path, monkeypatch):
    above = touch(cache_folder("i3d").parent / "i3d_pretrained_400.pt")
    assert find_weights() == above
    kept = touch(cache_folder("i3d") / "i3d.safetensors")
    assert find_weights() == kept
    monkeypatch.setenv("FLEXIVID_I3D", str(touch(tmp_path / "named.pt")))
    assert find_weights() == tmp_path / "named.pt"
    assert find_weights(kept) == kept


def test_a_folder_of_deepminds(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{DATA_FILE}, which do not exist"):
        find_weights(tmp_path)
    assert find_weights(touch(tmp_path / DATA_FILE).parent) == tmp_path / DATA_FILE


def test_without_weights_all_ways_are_told(monkeypatch):
    with pytest.raises(FileNotFoundError) as caught:
        load_i3d()
    for way in ("--download", URL, str(cache_folder("i3d")), "FLEXIVID_I3D", "--weights", "motion"):
        assert way in str(caught.value)
    monkeypatch.setenv("FLEXIVID_I3D", "gone.pt")
    with pytest.raises(FileNotFoundError, match=r"got I3D weights gone.pt.*correct the path in FLEXIVID_I3D"):
        load_i3d()


def test_a_download_is_checked_and_kept(tmp_path, monkeypatch):
    source = touch(tmp_path / "source")
    asked = []

    def download(url, path):
        asked.append(url)
        shutil.copy(source, path)

    with pytest.raises(ValueError, match=r"got .* of 1 bytes; expected 50818176"):
        fetch_weights(download)
    assert list(cache_folder("i3d").iterdir()) == []
    monkeypatch.setattr(i3d_weights, "read_checkpoint", lambda path: {})
    assert fetch_weights(download) == find_weights() == cache_folder("i3d") / DATA_FILE
    assert asked == [URL, URL]


def test_what_is_there_is_not_downloaded():
    kept = touch(cache_folder("i3d") / "i3d.safetensors")
    assert fetch_weights(None) == kept


@pytest.mark.parametrize("error", [ConnectionError("no route"), RuntimeError("got no whole answer")])
def test_offline_tells_the_other_ways(error):
    def download(url, path):
        raise error

    with pytest.raises(FileNotFoundError, match=rf"{error}.*put it into .*i3d.*FLEXIVID_I3D"):
        fetch_weights(download)


def test_the_network_is_frozen_and_has_the_right_epsilon(tmp_path, seeded_state):
    save_file(seeded_state, tmp_path / "i3d.safetensors")
    for compat, eps in ((None, 1e-3), ("videogpt", 1e-5)):
        with pytest.warns(UserWarning, match="not known"):
            network = load_i3d(tmp_path / "i3d.safetensors", compat=compat)
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert network.Mixed_5c.b3b.eps == eps
        assert np.array_equal(network.Mixed_5c.b3b.bn.bias, seeded_state["Mixed_5c.b3b.bn.bias"])
    with pytest.raises(ValueError, match="got compat 'tats'; expected 'videogpt' or None"):
        load_i3d(compat="tats")
