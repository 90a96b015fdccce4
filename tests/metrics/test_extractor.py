"""An extractor is frozen, exact whatever the precision around it, and says which one it is."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from flexivid.metrics.extractors import extractor as features
from flexivid.metrics.extractors.extractor import EXTRACTORS, Extractor, build_extractor, full_precision
from flexivid.metrics.extractors.networks import Network


class Mean(nn.Module):
    """Products of the means of the channels, which are not the same in lower precision."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 64, generator=torch.Generator().manual_seed(0)))
        self.drop = nn.Dropout(0.5)

    def forward(self, videos):
        return self.drop(videos.mean((2, 3, 4)) @ self.weight @ self.weight.T @ self.weight)


@pytest.fixture
def extractor():
    return Extractor("mean", Network(Mean().eval(), torch.nn.Identity().eval(), 64, 4, "none"))


def videos(b=5, t=8):
    return torch.rand(b, 3, t, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_shipped_extractor():
    extractor = build_extractor()
    assert (extractor.name, extractor.metric_name) == ("motion", "fvd[motion]")
    assert extractor(videos()).shape == (5, extractor.num_features)
    assert len(extractor.fingerprint) == 16
    assert extractor.fingerprint == build_extractor("motion").fingerprint


def test_it_stays_frozen(extractor):
    around = nn.ModuleList([extractor]).train()
    first = around[0](videos())
    assert not any(module.training for module in extractor.modules())
    assert not first.requires_grad
    assert torch.equal(first, extractor(videos()))


def test_precision_is_not_the_programs(extractor):
    expected = extractor(videos())
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            found = extractor(videos().double())
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_precision_is_put_back_after_an_error():
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    with full_precision("cpu"):
        assert matmul.fp32_precision == "ieee"
    with pytest.raises(ZeroDivisionError), full_precision("cpu"):
        _ = 1 / 0
    assert matmul.fp32_precision == before


def test_large_batches_are_taken_in_parts(extractor, monkeypatch):
    expected = extractor(videos())
    monkeypatch.setattr(features, "CLIPS", 2)
    torch.testing.assert_close(extractor(videos()), expected, rtol=1e-5, atol=1e-6)
    assert extractor(videos(0)).shape == (0, 64)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (videos(t=3), "got videos of 3 frames; expected at least 4 for mean; take longer videos"),
        (videos()[0], r"expected float \(b, 3, t, h, w\)"),
        (videos()[:, :1], r"expected float \(b, 3, t, h, w\)"),
        (videos().byte(), r"of torch.uint8; expected float"),
    ],
)
def test_what_is_no_video_is_refused(extractor, bad, message):
    with pytest.raises(ValueError, match=message):
        extractor(bad)


@pytest.mark.filterwarnings("ignore:.*weights that are not known")
def test_i3d_tells_its_variants_apart(tmp_path, seeded_state):
    path = tmp_path / "i3d.safetensors"
    save_file(seeded_state, path)
    torch.save(seeded_state, tmp_path / "i3d.pt")
    plain = build_extractor("i3d", weights=path)
    assert (plain.name, plain.metric_name, plain.num_features, plain.min_frames) == ("i3d", "fvd", 400, 9)
    assert plain.preprocessing == "224x224 bilinear half-pixel, whole frame, [-1, 1]"
    assert build_extractor("i3d", weights=tmp_path / "i3d.pt").fingerprint == plain.fingerprint
    port = build_extractor("i3d", weights=path, compat="videogpt")
    legacy = build_extractor("i3d", weights=path, resize="tf1")
    assert (port.metric_name, legacy.metric_name) == ("fvd[i3d-videogpt]", "fvd")
    assert len({plain.fingerprint, port.fingerprint, legacy.fingerprint}) == 3
    resized = plain.prepare(videos(1, 9))
    assert resized.shape == (1, 3, 9, 224, 224)
    assert torch.equal(plain(videos(1, 9)), plain.network(resized))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "c3d"}, f"got extractor c3d; expected one of {', '.join(EXTRACTORS)}"),
        ({"name": "motion", "weights": "a.pt"}, "got weights a.pt for motion; expected none"),
        ({"name": "r3d_18", "compat": "videogpt"}, "got compat videogpt for r3d_18; expected none"),
        ({"name": "motion", "resize": "tf1"}, "got resize tf1 for motion; expected none"),
        ({"name": "i3d", "resize": "lanczos"}, "got resize lanczos; expected one of bilinear, tf1, crop"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_extractor(**options)
