"""The default metric is never taken silently, and never in place of one that was asked for."""

import pytest

from flexivid.metrics.extractors.extractor import choose_metric


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXIVID_CACHE", str(tmp_path))
    monkeypatch.delenv("FLEXIVID_I3D", raising=False)
    return tmp_path


def test_without_weights_it_is_motion_and_says_so():
    metric, note = choose_metric(None)
    assert metric == {"name": "motion"}
    assert "fvd[motion]" in note
    assert "I3D" in note
    assert "--download" in note


def test_with_weights_it_is_i3d(no_weights, monkeypatch):
    file = no_weights / "weights.pt"
    file.touch()
    assert choose_metric(None, weights=str(file)) == ({"name": "i3d", "weights": str(file)}, "")
    monkeypatch.setenv("FLEXIVID_I3D", str(file))
    assert choose_metric(None) == ({"name": "i3d"}, "")


def test_what_is_asked_for_is_taken_or_refused(monkeypatch):
    assert choose_metric("motion") == ({"name": "motion"}, "")
    assert choose_metric("i3d") == ({"name": "i3d"}, "")  # its weights are missed when it is built
    for words in ({"compat": "videogpt"}, {"weights": "nowhere.pt"}):
        with pytest.raises(FileNotFoundError, match="got"):
            choose_metric(None, **words)
    monkeypatch.setenv("FLEXIVID_I3D", "nowhere.pt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        choose_metric(None)
