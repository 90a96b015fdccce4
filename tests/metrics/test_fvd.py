"""The metric: batches and what is kept change nothing; what cannot be used is refused, and nothing is lost."""

import pickle

import pytest
import torch
from torch import nn

from flexivid.metrics.frechet import frechet_distance
from flexivid.metrics.fvd import FrechetVideoDistance
from flexivid.metrics.scores import score

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method")


class Means(nn.Module):
    """Stands for a network: means of halves of each colour, and of the change from frame to frame."""

    num_features, name, metric_name = 9, "means", "fvd[means]"

    def forward(self, videos):
        change = videos.diff(dim=2).abs().mean((2, 3, 4))
        return torch.cat([videos[..., :4].mean((2, 3, 4)), videos[..., 4:].mean((2, 3, 4)), change], dim=1)


def clips(n, seed, *, num_frames=5, low=0):
    shape = (n, 3, num_frames, 8, 8)
    return torch.randint(low, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def to_float(videos):
    return videos.float() / 127.5 - 1


@pytest.fixture
def real():
    return clips(30, 0)


@pytest.fixture
def generated():
    return clips(23, 1, low=40)


@pytest.mark.parametrize("keep_features", [True, False])
def test_equals_the_distance_of_all_features(real, generated, keep_features):
    fvd = FrechetVideoDistance(Means(), keep_features=keep_features)
    for batch in real.split(7):
        fvd.update(batch, real=True)
    for batch in to_float(generated).split(4):
        fvd.update(batch, real=False)
    found = fvd.compute()
    truth = frechet_distance(Means()(to_float(generated)), Means()(to_float(real)))
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("keep_features", [True, False])
def test_fewer_videos_than_features(real, generated, keep_features):
    fvd = FrechetVideoDistance(Means(), keep_features=keep_features)
    fvd.update(real[:6], real=True)
    fvd.update(generated[:4], real=False)
    with pytest.warns(UserWarning, match="got 4 videos; expected at least 9"):
        found = fvd.compute().item()
    with pytest.warns(UserWarning, match="got 4 videos"):
        truth = frechet_distance(Means()(to_float(generated[:4])), Means()(to_float(real[:6])))
    assert found == pytest.approx(truth, rel=1e-9)


def test_features_of_a_kept_reference_serve_like_its_videos(real, generated):
    by_videos, by_features = FrechetVideoDistance(Means()), FrechetVideoDistance(Means())
    by_videos.update(real, real=True)
    by_features.update_features(Means()(to_float(real)), real=True)
    for fvd in (by_videos, by_features):
        fvd.update(generated, real=False)
    assert by_features.compute() == by_videos.compute()
    before = by_features.compute()
    by_features.update_features(torch.ones(3, 9), real=False)
    assert by_features.compute() > before  # what was computed before is not kept


def test_all_scores(real, generated):
    fvd = FrechetVideoDistance(Means())
    fvd.update(real, real=True)
    fvd.update(generated, real=False)
    assert fvd.scores(seed=3) == score(Means()(to_float(generated)), Means()(to_float(real)), seed=3)
    with pytest.raises(ValueError, match="set keep_features=True"):
        FrechetVideoDistance(Means(), keep_features=False).scores()


def test_generated_values_outside_are_clipped_as_in_a_file(real):
    videos = to_float(clips(12, 2)) * 1.4
    a, b = FrechetVideoDistance(Means()), FrechetVideoDistance(Means())
    for fvd, made in ((a, videos), (b, videos.clamp(-1, 1))):
        fvd.update(real, real=True)
        fvd.update(made, real=False)
    assert a.compute() == b.compute()


@pytest.mark.parametrize("keep_features", [True, False])
def test_reset_forgets_and_a_pickle_remembers(real, generated, keep_features):
    fvd = FrechetVideoDistance(Means(), keep_features=keep_features)
    fvd.update(clips(10, 5, num_frames=3), real=True)
    fvd.reset()
    fvd.update(real, real=True)
    fvd.update(generated, real=False)
    assert pickle.loads(pickle.dumps(fvd)).compute() == fvd.compute()
    fvd.reset()
    with pytest.raises(ValueError, match="got 0 and 0 videos"):
        fvd.compute()


@pytest.mark.parametrize(
    ("videos", "is_real", "message"),
    [
        (clips(3, 0, num_frames=4), True, "got real videos of 4 frames; expected 5, as before"),
        (to_float(clips(3, 0)).index_fill(0, torch.tensor([1]), torch.nan), False, "NaN or infinity, 1 of 3, .* at 1;"),
        (clips(3, 0).float(), True, r"got real videos with values up to 255; expected \[-1, 1\]"),
        (clips(3, 0)[:, :1], True, r"got videos \(3, 1, 5, 8, 8\) of torch.uint8; expected"),
        (clips(3, 0)[0], True, r"got videos \(3, 5, 8, 8\) of"),
        (clips(3, 0).int(), True, "of torch.int32; expected"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_lost(real, generated, videos, is_real, message):
    fvd = FrechetVideoDistance(Means())
    fvd.update(real, real=True)
    fvd.update(generated, real=False)
    before = fvd.compute()
    with pytest.raises(ValueError, match=message):
        fvd.update(videos, real=is_real)
    fvd.update(generated[:0], real=False)
    assert fvd.compute() == before


def test_features_of_another_extractor_or_broken_ones_are_refused():
    fvd = FrechetVideoDistance(Means())
    with pytest.raises(ValueError, match=r"got features \(4, 400\); expected \(b, 9\)"):
        fvd.update_features(torch.zeros(4, 400), real=True)
    with pytest.raises(ValueError, match="got generated features with NaN"):
        fvd.update_features(torch.full((4, 9), torch.nan), real=False)


def test_too_few_videos_are_refused(real):
    fvd = FrechetVideoDistance(Means())
    fvd.update(real, real=True)
    fvd.update(real[:1], real=False)
    with pytest.raises(ValueError, match="got 1 and 30 videos; expected at least 2 in each set"):
        fvd.compute()
