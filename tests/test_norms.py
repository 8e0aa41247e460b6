"""Norms of a vector and of its code: numbers by hand."""

import math

import pytest
import torch

from replication.evaluate import norms
from replication.synthetic import coherence, random_dictionary

ROWS = torch.tensor([[2.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])  # cosines 0.6, -1, -0.6


def test_cosines_of_three_rows():
    found = norms.cosines(ROWS)
    assert found == pytest.approx((-1, 0.6, -1 / 3, (0.36 + 1 + 0.36) / 3))
    assert found.largest == pytest.approx(1)


def test_an_antipodal_pair_is_invisible_in_the_signed_maximum():
    found = norms.cosines(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    assert (found.highest, found.largest) == (0, 1)


def test_all_cosines_may_be_negative():
    """Three directions at 120 degrees: no pair reaches 0."""
    angles = torch.tensor([0.0, 2.0, 4.0]) * math.pi / 3
    found = norms.cosines(torch.stack([angles.cos(), angles.sin()], -1))
    assert found == pytest.approx((-0.5, -0.5, -0.5, 0.25), abs=1e-6)


def test_cosines_do_not_depend_on_the_chunk(monkeypatch):
    rows = random_dictionary(50, 8, torch.Generator().manual_seed(0))
    whole = norms.cosines(rows)
    monkeypatch.setattr(norms, "CHUNK", 7)
    assert norms.cosines(rows) == pytest.approx(whole, abs=1e-6)
    assert whole.largest == pytest.approx(coherence(rows), abs=1e-6)
    assert whole.mean_square == pytest.approx(1 / 8, rel=0.1)


def test_cosines_need_a_pair():
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        norms.cosines(torch.ones(1, 3))


def test_effective_count():
    codes = torch.tensor([[1.0, -1.0, 1.0, 0.0], [3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]])
    torch.testing.assert_close(norms.effective_count(codes), torch.tensor([3.0, 49 / 25, 1.0]))


def test_wedge():
    assert norms.wedge(0.5) == pytest.approx((math.sqrt(2 / 3), math.sqrt(2)))
    assert norms.wedge(0.0) == (1, 1)
    assert norms.wedge(1.0) == (pytest.approx(math.sqrt(0.5)), math.inf)
    assert norms.wedge(3.0) == (0.5, math.inf)


def test_eps_lower_bound():
    """|z|^2 = 4, |f|^2 = 1: a gap of 3, over h - 1 = 10. The other way round 3 / 4 over 10."""
    z, f = torch.tensor([2.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])
    torch.testing.assert_close(norms.relative_gap(z, f), torch.tensor([3.0, 0.75, 0.0]))
    torch.testing.assert_close(norms.eps_lower_bound(z, f, 11), torch.tensor([0.3, 0.075, 0.0]))


def test_inside_a_wedge_is_a_small_gap():
    f, z = torch.tensor([0.9, 0.8, 1.2, 1.5]), torch.ones(4)
    low, high = norms.wedge(0.5)
    assert torch.equal((f >= low) & (f <= high), norms.relative_gap(z, f) <= 0.5)


def test_the_gap_is_interference_and_shrinkage():
    """|f| = 1, |z_hat|^2 = 1.5, |z|^2 = 1.7: 0.5 from the dictionary, 0.2 from the reconstruction."""
    split = norms.gap_split(torch.tensor(1.7).sqrt(), torch.tensor(1.5).sqrt(), torch.tensor(1.0))
    assert [part.item() for part in split] == pytest.approx([0.5, 0.2], abs=1e-6)


def test_two_directions_reach_the_bound():
    """Cosine 0.6, equal codes: |z|^2 = 2 + 2 * 0.6, and the gap 1.2 / 2 is eps (2 - 1). Opposite signs: from below."""
    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    for code in (torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])):
        z = torch.linalg.norm(code @ directions)
        assert norms.relative_gap(z, torch.linalg.norm(code)).item() == pytest.approx(0.6)
