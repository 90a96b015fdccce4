"""Weak modes of flexified models may pass on the detail of the noisy latent that their patches lose."""

import pytest
import torch

from flexivid.diffusion.process import Process
from flexivid.patching.embed import detail
from flexivid.patching.shapes import PatchMode
from flexivid.pretrained.adapter import flexify, load_adapter, save_adapter
from flexivid.pretrained.flexify import flexi_of, set_mode, unflexify
from flexivid.pretrained.signature import first_output, signature_of
from tests.pretrained.families import CASES, build

LINEAR = ("DiTTransformer2DModel", "LatteTransformer3DModel", "VideoDiT")


def is_known(case):
    model = build(case)
    call = case.call(1, case.even, torch.float32)
    has_one_time = call[signature_of(model).time].ndim == 1
    return has_one_time and (signature_of(model).is_flow or type(model).__name__ in LINEAR)


KNOWN = [case for case in CASES if is_known(case)]
UNKNOWN = next(case for case in CASES if case.name.startswith("cogvideox"))


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.name)
def test_the_output_gains_what_the_process_says_of_the_detail(case):
    torch.manual_seed(0)
    model, mode = build(case), case.modes[-1]
    signature = signature_of(model)
    call = case.call(2, case.even, torch.float32)
    with torch.no_grad():
        native = first_output(model, call)
        plain = first_output(set_mode(flexify(model, [mode], rank=2), mode), call)
        output = first_output(set_mode(flexify(unflexify(model), [mode], rank=2, detail=True), mode), call)
        assert torch.equal(first_output(set_mode(model, "native"), call), native)
    latent, added = (signature.unpack(x, call) for x in (call[signature.latent], output - plain))
    channels = min(latent.shape[1], added.shape[1])
    process = Process("flow", "velocity") if signature.is_flow else Process("linear", "noise")
    time = call[signature.time].float() / signature.noise_time + (0 if signature.is_flow else 0.001)
    lost = detail(latent[:, :channels], PatchMode(mode), PatchMode(case.native))  # see tests/model/test_weak_detail.py
    expected = process.detail_gain(time).view(-1, 1, 1, 1, 1) * lost
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(added[:, :channels], expected, rtol=1e-3, atol=1e-4)
    assert not added[:, channels:].any()


def test_a_folder_says_whether_modes_do(tmp_path):
    case = KNOWN[0]
    model = flexify(build(case), case.modes, rank=2, detail=True)
    folder = save_adapter(model, tmp_path / "modes")
    assert flexi_of(load_adapter(unflexify(model), folder)).detail
    settings = folder / "flexivid.json"
    settings.write_text(settings.read_text().replace('"detail": true,', ""))  # as older folders are
    with pytest.raises(ValueError, match="'detail': False"):
        load_adapter(model, folder)
    assert not flexi_of(load_adapter(unflexify(model), folder)).detail


def test_models_of_an_unknown_process_are_refused():
    with pytest.raises(ValueError, match=r"got detail=True for CogVideoX.*leave detail out"):
        flexify(build(UNKNOWN), UNKNOWN.modes, detail=True)
