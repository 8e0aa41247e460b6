"""Data with known truth: the authors' draws, and recoverability on cases that a reader can check by hand."""

import math

import numpy as np
import pytest
import torch

from replication.synthetic import (
    Compositions,
    SparseCodes,
    binary_boundary,
    coherence,
    drawn_boundary,
    in_cone_of_others,
    in_general_position,
    isometry_constant,
    natural_boundary,
    random_dictionary,
    spark,
    welch_bound,
)

SQUARE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])


def test_draws_are_those_of_the_released_code():
    """Its order, written out with the global generators that it uses."""
    state = np.random.get_state()
    try:
        with torch.random.fork_rng():
            np.random.seed(20240625)
            torch.manual_seed(20240625)
            rows = []
            for _ in range(20):
                s = np.abs(np.random.normal(0, 1, 16))
                mask = np.zeros(16)
                mask[np.random.choice(16, 3, replace=False)] = 1
                rows.append(s * mask)
            atoms = torch.randn(16, 8)
    finally:
        np.random.set_state(state)
    data = SparseCodes(16, 8, 3, train=15, test=5).draw()
    assert torch.equal(
        torch.cat([data.train_codes, data.test_codes]), torch.tensor(np.array(rows), dtype=torch.float32)
    )
    assert torch.equal(data.atoms, atoms / torch.linalg.norm(atoms, dim=1, keepdim=True))
    assert torch.allclose(data.test_x, data.test_codes @ data.atoms, atol=1e-6)


def test_drawing_leaves_the_global_generators_alone():
    before, state = torch.get_rng_state(), np.random.get_state()[1].copy()
    SparseCodes(16, 8, 3, train=4, test=4).draw()
    Compositions(20, 3, samples=4).draw()
    assert torch.equal(before, torch.get_rng_state())
    assert (state == np.random.get_state()[1]).all()


def test_exactly_k_are_active_and_atoms_have_norm_one():
    data = SparseCodes(10, 6, 4, train=50, test=10, seed=1).draw()
    assert ((data.train_codes > 0).sum(-1) == 4).all()
    assert torch.allclose(data.atoms.norm(dim=1), torch.ones(10))


def test_compositions():
    """20 atoms: 1 to 9 meet atom 0 in training, 10 to 19 in the OOD test."""
    source = Compositions(20, 3, samples=400)
    assert source.d_in == math.ceil(2 * 3 * math.log(20 / 3)) == 12
    data = source.draw()
    assert all(((codes > 0).sum(-1) == 3).all() for codes in data[1:4])
    assert all(codes.max() <= 1 for codes in data[1:4])
    with_0 = data.train_codes[data.train_codes[:, 0] > 0]
    assert 150 < len(with_0) < 250
    assert not with_0[:, 10:].any()
    assert data.train_codes[data.train_codes[:, 0] == 0][:, 10:].any()
    assert (data.ood_codes[:, 0] > 0).all() and not data.ood_codes[:, 1:10].any()
    assert data.labels(data.ood_codes).float().mean() == pytest.approx(0.5, abs=0.1)
    assert torch.allclose(data.ood_x, data.ood_codes @ data.atoms, atol=1e-6)
    assert not torch.equal(data.train_codes, data.val_codes)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SparseCodes(0, 8, 3), "n_atoms must be at least 1, got 0"),
        (lambda: SparseCodes(16, 8, 17), "k must be at most n_atoms=16, got 17"),
        (lambda: SparseCodes(16, 8, 3, train=0), "train must be at least 1, got 0"),
        (lambda: SparseCodes(16, 8, 3, seed=-1), "seed must be at least 0, got -1"),
        (lambda: SparseCodes(16, 8, True), "k must be an integer, got True"),
        (lambda: Compositions(20, 11), "k must be at most 10 where n_atoms=20, got 11"),
        (lambda: natural_boundary(4, 5), "k must be between 1 and n_atoms=4, got 5"),
        (lambda: isometry_constant(SQUARE, 4), "k must be between 1 and n_atoms=3, got 4"),
        (lambda: spark(torch.randn(60, 30)), "n_atoms=60 has 487,635 sets of 4; at most 100,000"),
    ],
)
def test_nonsense_is_refused_by_name_and_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_boundaries_of_16_atoms_3_active():
    assert drawn_boundary(16, 3) == pytest.approx(10.04, abs=0.005)
    assert natural_boundary(16, 3) == pytest.approx(5.02, abs=0.005)
    assert binary_boundary(16, 3) == pytest.approx(7.25, abs=0.01)


def test_coherence_and_welch_bound():
    assert coherence(SQUARE) == pytest.approx(0.8)
    three = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])  # three lines at 60 degrees reach it
    assert coherence(three) == pytest.approx(welch_bound(3, 2)) == pytest.approx(0.5)
    assert welch_bound(4, 4) == 0


def test_spark():
    assert spark(SQUARE) == 3 and in_general_position(SQUARE)
    assert spark(torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0]])) == 2
    assert spark(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [0, 0, 1]])) == 3
    assert spark(torch.eye(3)) == 4


def test_isometry_constant_of_two_atoms_is_their_cosine():
    assert isometry_constant(SQUARE, 1) == pytest.approx(0, abs=1e-6)
    assert isometry_constant(SQUARE, 2) == pytest.approx(0.8)


def test_an_atom_between_two_others_is_in_their_cone():
    assert in_cone_of_others(SQUARE).tolist() == [False, False, True]


def test_the_papers_default_dictionary():
    """Unique codes without restricted isometry: spark 9 > 2 k, although delta_6 > 1."""
    atoms = SparseCodes(16, 8, 3, train=1, test=0, seed=20240625).draw().atoms  # atoms do not depend on the codes
    assert spark(atoms) == 9
    assert coherence(atoms) == pytest.approx(0.771, abs=5e-4)
    assert welch_bound(16, 8) == pytest.approx(0.258, abs=5e-4)
    assert [isometry_constant(atoms, k) for k in (2, 3, 6)] == pytest.approx([0.77, 1.42, 2.55], abs=5e-3)


def test_random_dictionaries_are_reproducible():
    one, two = (random_dictionary(5, 3, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, two) and torch.allclose(one.norm(dim=1), torch.ones(5))
