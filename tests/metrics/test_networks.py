"""torchvision's networks give the input of their last layer; a file gives what its module does."""

import urllib.error
import warnings

import pytest
import torch
import torchvision
from torch import nn

from flexivid.metrics.extractors.extractor import build_extractor
from flexivid.metrics.extractors.networks import TORCHVISION


class Colours(nn.Module):
    """Means of the channels of the first half of a frame."""

    def __init__(self, **attributes):
        super().__init__()
        self.linear = nn.Linear(3, 5)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, videos):
        return self.linear(videos.mean((2, 3, 4)))


def videos(b=1, t=8, size=(60, 80)):
    return torch.rand(b, 3, t, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def script(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(str(path))
    return path


def check_torchvision(name, folder, clips):
    network = torchvision.models.get_model(name).eval()
    torch.save(network.state_dict(), folder / "weights.pth")
    extractor = build_extractor(name, weights=folder / "weights.pth")
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    head = getattr(network, TORCHVISION[name][0])
    with torch.no_grad():
        expected = network(preset((clips + 1).transpose(1, 2).contiguous() / 2))
        found = extractor(clips)
        torch.testing.assert_close(head(found), expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (len(clips), extractor.num_features)
    assert extractor.metric_name == f"fvd[{name}]"
    return extractor


def test_r3d(tmp_path):
    extractor = check_torchvision("r3d_18", tmp_path, videos())
    assert extractor.preprocessing.startswith("torchvision: to 128x171, 112x112 of the centre, mean [0.43")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvit_v2_s", "swin3d_t"])
def test_transformers(name, tmp_path):
    check_torchvision(name, tmp_path, videos(t=16))


@pytest.mark.slow
def test_mvit_takes_sixteen_frames_of_any_number(tmp_path):
    torch.save(torchvision.models.get_model("mvit_v2_s").state_dict(), tmp_path / "weights.pth")
    extractor = build_extractor("mvit_v2_s", weights=tmp_path / "weights.pth")
    clip = videos(t=32)
    assert torch.equal(extractor.prepare(clip), extractor.prepare(clip[:, :, ::2]))
    assert extractor.prepare(clip).shape == (1, 3, 16, 224, 224)
    with pytest.raises(ValueError, match="expected at least 16"):
        extractor(clip[:, :, :15])


def test_without_a_connection_the_other_ways_are_told(monkeypatch):
    def load(*args, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", load)
    with pytest.raises(FileNotFoundError, match=r"no weights of r3d_18 from https.*no route.*put it into .*--weights"):
        build_extractor("r3d_18")


def test_unusable_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got weights .*none.pth, which do not exist"):
        build_extractor("r3d_18", weights=tmp_path / "none.pth")
    (tmp_path / "damaged.pth").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"damaged.pth, which cannot be read .*expected a state dict of r3d_18"):
        build_extractor("r3d_18", weights=tmp_path / "damaged.pth")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="got weights of r3d_18 that do not fit"):
        build_extractor("r3d_18", weights=tmp_path / "other.pth")


def test_a_scripted_module(tmp_path):
    module = Colours(num_features=5, min_frames=4)
    extractor = build_extractor(script(module, tmp_path / "colours.pt"))
    assert (extractor.name, extractor.num_features, extractor.min_frames) == ("colours", 5, 4)
    assert extractor.metric_name == "fvd[colours]"
    assert torch.equal(extractor(videos(3)), module(videos(3)))
    assert build_extractor(script(Colours(), tmp_path / "silent.pt")).num_features == 5


def test_an_exported_module(tmp_path):
    module, batch, frames = Colours().eval(), torch.export.Dim("b"), torch.export.Dim("t")
    exported = torch.export.export(module, (videos(2),), dynamic_shapes=({0: batch, 2: frames},))
    torch.export.save(exported, tmp_path / "colours.pt2")
    extractor = build_extractor(str(tmp_path / "colours.pt2"))
    assert nn.ModuleList([extractor]).train()[0](videos(3, 9)).shape == (3, extractor.num_features) == (3, 5)
    torch.testing.assert_close(extractor(videos(3, 9)), module(videos(3, 9)))


@pytest.mark.parametrize("name", ["text.pt", "text.pt2", "state.pt"])
def test_a_file_without_a_module_is_refused(tmp_path, name):
    if name == "state.pt":
        torch.save(Colours().state_dict(), tmp_path / name)
    else:
        (tmp_path / name).write_text("no module")
    with pytest.raises(ValueError, match=f"{name}, which cannot be opened .*torch.export.save"):
        build_extractor(tmp_path / name)


def test_a_module_for_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"does not take videos \(1, 3, 16, 224, 224\)"):
        build_extractor(script(nn.Linear(3, 5), tmp_path / "linear.pt"))
    with pytest.raises(ValueError, match=r"does not give one tensor \(b, d\)"):
        build_extractor(script(nn.Identity(), tmp_path / "identity.pt"))
