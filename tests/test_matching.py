"""Scores of a known truth on numbers that a reader can check by hand, and their published chance levels."""

import numpy as np
import pytest
import torch

from replication import matching
from replication.inference import fista
from replication.synthetic import SparseCodes, random_dictionary

CODES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])  # uncorrelated columns


def test_correlations_are_pearsons():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(50, 3, generator=generator), torch.randn(50, 4, generator=generator)
    expected = np.corrcoef(a.numpy(), b.numpy(), rowvar=False)[:3, 3:]
    assert np.allclose(matching.correlations(a, b).numpy(), expected)


def test_latent_mcc_ignores_order_sign_and_scale():
    assert matching.latent_mcc(CODES, CODES.flip(1) * torch.tensor([-2.0, 3.0]) + 1) == pytest.approx(1)


def test_a_constant_latent_scores_zero():
    assert matching.latent_mcc(CODES, torch.stack([CODES[:, 0], torch.ones(4)], 1)) == pytest.approx(0.5)


def test_hungarian_and_greedy():
    scores = torch.tensor([[0.9, 0.8], [0.7, 0.1]])  # greedy takes 0.9 and is left with 0.1
    assert matching.matched_mean(scores, "hungarian") == pytest.approx(0.75)
    assert matching.matched_mean(scores, "greedy") == pytest.approx(0.5)
    assert matching.matched(scores) == ([0, 1], [1, 0])
    with pytest.raises(ValueError, match="matching must be one of .* got 'best'"):
        matching.matched_mean(scores, "best")


def test_other_widths_are_matched_greedily_over_the_narrower():
    assert matching.latent_mcc(CODES, torch.cat([CODES, CODES[:, :1]], 1)) == pytest.approx(1)
    assert matching.latent_mcc(CODES, CODES[:, 1:]) == pytest.approx(1)


def test_signed_mcc_keeps_order_and_sign():
    assert matching.signed_mcc(CODES, CODES) == pytest.approx(1)
    assert matching.signed_mcc(CODES, CODES.flip(1)) == pytest.approx(0)
    assert matching.signed_mcc(CODES, CODES * torch.tensor([1.0, -1.0])) == pytest.approx(0)


def test_dictionary_scores():
    atoms = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert matching.dictionary_cosine(atoms, -atoms.flip(0)) == pytest.approx(1)
    assert matching.dictionary_cosine(atoms, torch.tensor([[1.0, 0, 0], [0, 0, 0]])) == pytest.approx(0.5)
    # across entries (1, 0, 0) and (0, 1, 0) correlate: centred (2, -1, -1)/3 and (-1, 2, -1)/3, cosine -1/2
    assert matching.dictionary_mcc(atoms[:1], atoms[1:]) == pytest.approx(0.5)


def test_models_are_a_leading_dimension():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 3, 30, 4, generator=generator), torch.rand(2, 3, 30, 4, generator=generator)
    together = matching.latent_mcc(a, b)
    assert together.shape == (2, 3)
    assert together[1, 2] == pytest.approx(matching.latent_mcc(a[1, 2], b[1, 2]).item())
    assert matching.signed_mcc(a, b)[0, 1] == pytest.approx(matching.signed_mcc(a[0, 1], b[0, 1]).item())


def test_normalised_score():
    assert matching.normalised_score(0.7, chance=0.4, oracle=1.0) == pytest.approx(0.5)


def test_shuffled_codes_score_near_zero():
    codes = SparseCodes(16, 8, 3).draw().test_codes
    assert matching.shuffled_mcc(codes, torch.Generator().manual_seed(0)) == pytest.approx(0.06, abs=0.01)


@pytest.mark.parametrize(
    "n, d, greedy, hungarian, cosine",
    [(16, 8, 0.636, 0.661, 0.620), (128, 8, 0.810, 0.835, 0.803), (32, 16, 0.518, 0.539, 0.523)],
)
def test_chance_of_dictionary_scores(n, d, greedy, hungarian, cosine):
    """Two random dictionaries. 10 seeds leave an error of 0.005 (16 rows) or less; the table's own 10 as much again."""
    pairs = [random_dictionary(2 * n, d, torch.Generator().manual_seed(seed)).split(n) for seed in range(10)]
    a, b = (torch.stack(part) for part in zip(*pairs, strict=True))
    assert matching.dictionary_mcc(a, b, "greedy").mean() == pytest.approx(greedy, abs=0.02)
    assert matching.dictionary_mcc(a, b).mean() == pytest.approx(hungarian, abs=0.02)
    assert matching.dictionary_cosine(a, b).mean() == pytest.approx(cosine, abs=0.02)


@pytest.mark.parametrize("n, d, k, chance, oracle", [(16, 8, 3, 0.425, 0.991), (16, 16, 3, 0.504, 1.0)])
def test_chance_and_oracle_of_latents(n, d, k, chance, oracle):
    """FISTA (lam 0.01, 200 iterations) with a random and with the true dictionary, 10 seeds of each."""
    draws = [SparseCodes(n, d, k, train=1, seed=seed).draw() for seed in range(10)]
    codes, x, atoms = (torch.stack([getattr(one, name) for one in draws]) for name in ("test_codes", "test_x", "atoms"))
    others = torch.stack([random_dictionary(n, d, torch.Generator().manual_seed(100 + seed)) for seed in range(10)])
    assert matching.latent_mcc(codes, fista(x, others, 0.01, 200)).mean() == pytest.approx(chance, abs=0.04)
    assert matching.latent_mcc(codes, fista(x, atoms, 0.01, 200)).mean() == pytest.approx(oracle, abs=0.02)
