"""Metrics on numbers that a reader can check by hand."""

import pytest
import torch

from replication import metrics

X = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]])  # mean (2, 1); squared distances from it 2, 2, 4


def test_fvu_is_one_for_the_mean_and_zero_for_a_copy():
    assert metrics.fvu(X, X.mean(0).expand(3, 2)) == pytest.approx(1)
    assert metrics.fvu(X, X) == 0
    assert metrics.fvu(X, X + torch.tensor([1.0, 0.0])) == pytest.approx(3 / 8)


def test_nmse_takes_the_mean_it_is_given():
    # around the origin the squares are 1, 9, 13; the error is 3
    assert metrics.nmse(X, X + torch.tensor([0.0, 1.0]), torch.zeros(2)) == pytest.approx(3 / 23)


def test_readme_nmse_is_uncentred_and_per_token():
    recon = torch.tensor([[0.0, 0.0], [3.0, 0.0], [2.0, 0.0]])  # errors 1/1, 0/9, 9/13
    assert metrics.readme_nmse(X, recon) == pytest.approx((1 + 9 / 13) / 3)


def test_the_two_normalised_errors_differ_when_the_mean_is_large():
    x = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)) + 10
    predicted = x.mean(0).expand_as(x)
    assert metrics.nmse(x, predicted, x.mean(0)) == pytest.approx(1)
    assert metrics.readme_nmse(x, predicted) < 0.02


def test_l0_counts_negative_latents_too():
    assert metrics.l0(torch.tensor([[0.0, 1.0, -2.0], [0.0, 0.0, 3.0]])) == pytest.approx(1.5)


def test_dead_fraction():
    assert metrics.dead_fraction(torch.tensor([True, False, True, True])) == pytest.approx(0.25)


def test_cosine():
    assert metrics.cosine(X[:2], torch.tensor([[2.0, 0.0], [0.0, 1.0]])) == pytest.approx(0.5)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_shrinkage_finds_the_factor(factor):
    assert metrics.shrinkage(X, factor * X) == pytest.approx(factor)


def test_pca_fvu_of_axis_aligned_data():
    x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # variances 4 : 1
    assert metrics.pca_fvu(x).tolist() == pytest.approx([1, 0.2, 0])


def test_every_printed_metric_says_what_it_is():
    for name, definition in metrics.DEFINITIONS.items():
        assert (
            definition.label and definition.meaning and ":" in definition.baseline or "control" in definition.baseline
        ), name
