"""A network that gains modes computes in its old ones what it did."""

import pytest
import torch

from flexivid.pretrained.more_modes import add_modes


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("1x2x2",), ("1x4x4", "2x4x4")),
        (("1x2x2", "1x4x4"), ("2x8x8",)),
        (("1x2x2", "2x2x2", "1x4x4"), ("4x2x2",)),
        (("2x4x4",), ("1x2x2",)),
    ],
)
@pytest.mark.parametrize("options", [{}, {"block_conditioning": True}])
def test_old_modes_stay_what_they_were(old, new, options, make_model):
    model = make_model(modes=old, **options)
    larger = add_modes(model, new)
    assert list(map(str, larger.config.modes)) == [*old, *new]
    x, time = torch.randn(2, 3, 4, 8, 8), torch.rand(2)
    with torch.no_grad():
        for mode in old:
            torch.testing.assert_close(larger(x, time, mode=mode), model(x, time, mode=mode), rtol=1e-5, atol=1e-5)
        assert all(larger(x, time, mode=mode).shape == x.shape for mode in new)
