"""DiT inflated to video starts as DiT on every frame; it is saved and loaded as models of diffusers are."""

import torch

from flexivid.pretrained.families.video_dit import VideoDiT, inflate
from tests.pretrained.families import CASES, build, output


def test_an_inflated_dit_is_the_dit_on_every_frame_and_survives_the_disk(tmp_path) -> None:
    dit = build(next(case for case in CASES if case.name == "dit"))
    video = torch.randn(2, 4, 3, 8, 8)
    steering = {"timestep": torch.tensor([3, 700]), "class_labels": torch.tensor([1, 2])}
    frames = [output(dit, {"hidden_states": video[:, :, frame], **steering}) for frame in range(3)]
    model = inflate(dit, 3)
    got = output(model, {"hidden_states": video, **steering})
    torch.testing.assert_close(got, torch.stack(frames, dim=2))
    model.save_pretrained(tmp_path)
    loaded = VideoDiT.from_pretrained(tmp_path).eval()
    assert torch.equal(output(loaded, {"hidden_states": video, **steering}), got)
