"""Codes for a given dictionary: by hand, against scikit-learn and scipy, against the published values."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.linear_model import Lasso

from replication.inference import (
    LISTA,
    dl_fista,
    fista,
    ista,
    l0_oracle,
    lam_of_weight,
    matching_pursuit,
    omp,
    optimise,
    optimise_curve,
    refit,
    sparse_coding,
)
from replication.inference.adam import adam
from replication.inference.descent import authors_dictionaries
from replication.inference.dictionaries import update
from replication.matching import dictionary_cosine, dictionary_mcc, latent_mcc
from replication.synthetic import SparseCodes, random_dictionary

PAPER = SparseCodes(16, 8, 3)
DATA = PAPER.draw()
AXES = torch.eye(3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss(x, z, dictionary, l1=0.01):
    return (x - z @ dictionary).square().mean() + l1 * z.abs().mean()


@pytest.mark.parametrize("n, d", [(16, 8), (40, 8)])  # through the Gram matrix, and through two products
@pytest.mark.parametrize("lam", [0.01, 0.1])
def test_fista_is_lasso_without_negative_codes(n, d, lam):
    dictionary = random_dictionary(n, d, generator()).double()  # to see that the minimum is the same, to 5 digits
    x = torch.randn(20, d, generator=generator(1)).double()
    ours = fista(x, dictionary, lam, iterations=20_000)
    lasso = Lasso(alpha=lam / d, positive=True, fit_intercept=False, tol=1e-10, max_iter=100_000)
    theirs = torch.tensor(lasso.fit(dictionary.T.numpy(), x.T.numpy()).coef_)
    assert torch.allclose(ours, theirs, atol=2e-5)
    if n == 16:  # with 40 rows ISTA takes longer still
        assert torch.allclose(ista(x, dictionary, lam, iterations=20_000), theirs, atol=2e-3)


def test_fista_with_an_orthonormal_dictionary_is_one_soft_threshold():
    x = torch.tensor([[0.5, 0.05, -1.0]])
    assert torch.allclose(fista(x, AXES, lam=0.1, iterations=1), torch.tensor([[0.4, 0.0, 0.0]]))


def test_fista_starts_where_it_is_told():
    converged = fista(DATA.test_x[:50], DATA.atoms, 0.1, 3000)
    again = fista(DATA.test_x[:50], DATA.atoms, 0.1, 1, start=converged)
    assert torch.allclose(converged, again, atol=1e-5)
    assert torch.equal(fista(DATA.test_x[:50], DATA.atoms, 0.1, 0, start=converged), converged)


@pytest.mark.parametrize("method", [fista, ista, lambda x, d: optimise(x, d, steps=20)])
def test_models_are_leading_dimensions(method):
    dictionaries = torch.stack([random_dictionary(16, 8, generator(seed)) for seed in range(3)])
    together = method(DATA.test_x[:64], dictionaries)
    assert together.shape == (3, 64, 16)
    assert torch.allclose(together[1], method(DATA.test_x[:64], dictionaries[1]), atol=1e-5)
    nested = method(DATA.test_x[:64].expand(1, 3, -1, -1), dictionaries[None])
    assert torch.allclose(nested[0], together, atol=1e-5)


@pytest.mark.parametrize(
    "lam, iterations, mcc",
    [
        (0.0025, 20, 0.902),
        (0.0025, 100, 0.972),
        (0.0025, 500, 0.992),
        (0.01, 20, 0.918),
        (0.01, 100, 0.987),
        (0.01, 500, 0.991),
        (0.1, 20, 0.960),
        (0.1, 100, 0.973),
        (0.1, 500, 0.973),
    ],
)
def test_fista_on_the_papers_test_set(lam, iterations, mcc):
    found = latent_mcc(DATA.test_codes, fista(DATA.test_x, DATA.atoms, lam, iterations))
    assert found == pytest.approx(mcc, abs=6e-4)


def test_the_papers_weight_in_our_unit():
    assert lam_of_weight(0.01, 16, 8) == pytest.approx(0.0025)


def test_the_oracle_solves_the_papers_problem():
    codes = l0_oracle(DATA.test_x, DATA.atoms, 3)
    assert torch.allclose(codes, DATA.test_codes, atol=1e-5)
    assert latent_mcc(DATA.test_codes, codes) == pytest.approx(1, abs=1e-6)


def test_the_oracle_with_as_many_atoms_as_it_likes_is_non_negative_least_squares():
    dictionary, x = random_dictionary(5, 6, generator()), torch.randn(10, 6, generator=generator(1))
    expected = [nnls(dictionary.T.double().numpy(), one.double().numpy())[0] for one in x]
    assert torch.allclose(l0_oracle(x, dictionary, 5).double(), torch.tensor(np.array(expected)), atol=1e-6)


def test_the_oracle_by_hand():
    x = torch.tensor([[3.0, 2.0, -5.0], [-1.0, -1.0, -1.0]])  # -5 is the largest, and out of reach
    assert l0_oracle(x, AXES, 1).tolist() == [[3, 0, 0], [0, 0, 0]]
    assert l0_oracle(x, AXES, 2).tolist() == [[3, 2, 0], [0, 0, 0]]


@pytest.mark.parametrize("method", [omp, matching_pursuit])
def test_pursuit_by_hand(method):
    x = torch.tensor([[3.0, 2.0, -5.0], [-1.0, -1.0, -1.0]])
    assert torch.allclose(method(x, AXES, 1), torch.tensor([[3.0, 0, 0], [0, 0, 0]]))
    assert torch.allclose(method(x, 2 * AXES, 3), torch.tensor([[1.5, 1, 0], [0, 0, 0]]))


def test_omp_refits_and_matching_pursuit_does_not():
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    x = torch.tensor([[2.0, 1.0]])  # = 1.25 (1, 0) + 1.25 (0.6, 0.8)
    assert torch.allclose(omp(x, rows, 2), torch.tensor([[1.25, 1.25]]), atol=1e-6)
    assert (matching_pursuit(x, rows, 2) - 1.25).abs().max() > 0.1


def test_omp_holds_at_most_k():
    assert ((omp(DATA.test_x, DATA.atoms, 3) > 0).sum(-1) <= 3).all()
    assert latent_mcc(DATA.test_codes, omp(DATA.test_x, DATA.atoms, 3)) > 0.93


def test_refit_finds_the_magnitudes_of_the_true_support():
    codes = refit(DATA.test_x, DATA.atoms, DATA.test_codes > 0)
    assert torch.allclose(codes, DATA.test_codes, atol=1e-5)
    assert not refit(DATA.test_x[:5], DATA.atoms, torch.zeros(5, 16, dtype=torch.bool)).any()


def test_refit_drops_rows_that_come_out_negative():
    x = torch.tensor([[3.0, -2.0, 1.0]])
    everything = torch.ones(1, 3, dtype=torch.bool)
    assert torch.allclose(refit(x, AXES, everything), torch.tensor([[3.0, 0, 1]]))
    assert torch.allclose(refit(x, AXES, everything, nonnegative=False), x)


def test_refit_on_dependent_rows_shares_their_part():
    assert torch.allclose(refit(torch.tensor([[2.0, 0, 0]]), AXES[[0, 0, 1]], torch.ones(1, 3, dtype=torch.bool)),
                          torch.tensor([[1.0, 1, 0]]), atol=1e-5)  # fmt: skip


def test_an_untrained_lista_is_ista():
    lista = LISTA(DATA.atoms, unrolled=7, lam=0.05)
    assert torch.allclose(lista(DATA.test_x), ista(DATA.test_x, DATA.atoms, 0.05, 7), atol=1e-5)


def test_training_a_lista_lowers_its_loss():
    x = DATA.train_x[:256]
    lista = LISTA(torch.stack([DATA.atoms, DATA.atoms]), unrolled=3)
    before = lista(x).detach()
    after = lista.fit(x, steps=100, lr=3e-3)(x).detach()
    assert all(
        loss(x, new, DATA.atoms) < 0.7 * loss(x, old, DATA.atoms) for new, old in zip(after, before, strict=True)
    )
    assert torch.equal(after[0], after[1])


def test_adam_is_torchs():
    weights = torch.randn(7, generator=generator())
    reference = torch.nn.Parameter(weights.clone())
    optimiser = torch.optim.Adam([reference], lr=0.01)
    ours, gradient = weights.clone(), torch.empty(7)
    curve = adam(ours, gradient, lambda: gradient.copy_(4 * ours**3), steps=50, lr=0.01, at=[0, 10], record=ours.clone)
    for _ in range(50):
        reference.grad = 4 * reference.detach() ** 3
        optimiser.step()
    assert torch.allclose(ours, reference.detach(), atol=1e-6)
    assert torch.equal(curve[0], weights) and list(curve) == [0, 10]


def test_the_authors_sparse_coding_at_its_lowest():
    """Stored after 2,001 steps, means of five starts: latent MCC 0.284, dictionary MCC 0.389, when codes still grow."""
    source = SparseCodes(16, 8, 3, seed=20240926)
    data = source.draw()
    starts = authors_dictionaries(16, 8, range(source.seed, source.seed + 5))
    learned = sparse_coding(data.train_x, starts, steps=2001).dictionary
    assert dictionary_mcc(data.atoms.expand(5, -1, -1), learned).mean() == pytest.approx(0.389, abs=1e-3)
    codes = optimise(data.test_x, learned)
    assert latent_mcc(data.test_codes.expand(5, -1, -1), codes).mean() == pytest.approx(0.284, abs=1e-3)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    optimise(DATA.test_x[:4], DATA.atoms, steps=2)
    assert torch.get_num_threads() == before


def test_a_diverged_descent_is_an_error():
    ours, gradient = torch.zeros(1), torch.full((1,), torch.nan)
    with pytest.raises(FloatingPointError, match="lr=0.5: parameters are not finite after 2 steps"):
        adam(ours, gradient, lambda: None, steps=2, lr=0.5)


def test_optimise_is_adam_on_the_papers_loss():
    x = DATA.test_x[:32]
    q = torch.nn.Parameter(torch.full((32, 16), -10.0))
    optimiser = torch.optim.Adam([q], lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        loss(x, q.exp(), DATA.atoms).backward()
        optimiser.step()
    assert torch.allclose(optimise(x, DATA.atoms, steps=100, lr=0.1), q.detach().exp(), atol=1e-4)


def test_sparse_coding_is_adam_on_codes_and_dictionary():
    x, starts = DATA.train_x[:64], authors_dictionaries(16, 8, [1, 2])
    found = sparse_coding(
        x, starts, steps=100, lr=0.1, at=[0, 50], measure=lambda dictionary, codes: codes.sum().item()
    )
    for dictionary, codes, start in zip(found.dictionary, found.codes, starts, strict=True):
        q, rows = torch.nn.Parameter(torch.full((64, 16), -10.0)), torch.nn.Parameter(start.clone())
        optimiser = torch.optim.Adam([q, rows], lr=0.1)
        for _ in range(100):
            rows.data /= rows.data.norm(dim=1, keepdim=True)
            optimiser.zero_grad()
            loss(x, q.exp(), rows).backward()
            optimiser.step()
        rows = rows.detach() / rows.detach().norm(dim=1, keepdim=True)
        assert torch.allclose(dictionary, rows, atol=5e-3) and torch.allclose(codes, q.detach().exp(), atol=2e-2)
    assert found.curve[0] == pytest.approx(2 * 64 * 16 * 4.54e-5, rel=1e-3)


def test_the_authors_dictionaries_are_torchs_at_seed_plus_42():
    with torch.random.fork_rng():
        torch.manual_seed(7 + 42)
        drawn = torch.randn(8, 16)
    assert torch.allclose(authors_dictionaries(16, 8, [7])[0], (drawn / drawn.norm(dim=0)).T)


def test_a_dictionary_update_is_least_squares():
    codes = torch.rand(1, 100, 4, generator=generator())
    rows = random_dictionary(4, 6, generator(1))
    assert torch.allclose(update(codes @ rows, codes)[0], rows, atol=1e-4)


def test_unused_rows_take_the_largest_residuals():
    x = torch.tensor([[[1.0, 0, 0], [0, 3, 0], [0, 0, 2]]])
    codes = torch.tensor([[[1.0, 0, 0], [0, 0, 0], [0, 0, 0]]])
    assert torch.allclose(update(x, codes), AXES, atol=1e-4)  # 3 before 2


def test_dl_fista_learns_the_dictionary_of_an_easy_problem():
    data = SparseCodes(8, 8, 2, train=500, test=1, seed=3).draw()
    starts = torch.stack([random_dictionary(8, 8, generator(10 + seed)) for seed in range(4)])
    score = lambda rows: dictionary_cosine(data.atoms.expand_as(rows), rows)  # noqa: E731
    learned = dl_fista(data.train_x, starts, rounds=100, at=[0, 100], measure=score)
    assert learned.curve[0].max() < 0.75 and learned.curve[100].max() > 0.99
    assert torch.allclose(learned.dictionary.norm(dim=-1), torch.ones(4, 8), atol=1e-5)
    alone = dl_fista(data.train_x, starts[1], rounds=3).dictionary
    assert torch.allclose(alone, dl_fista(data.train_x, starts, rounds=3).dictionary[1], atol=1e-4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fista(DATA.test_x, DATA.atoms, lam=-1.0), "lam must be at least 0 and finite, got -1"),
        (lambda: ista(DATA.test_x, DATA.atoms, iterations=-1), "iterations must be at least 0, got -1"),
        (lambda: l0_oracle(DATA.test_x, DATA.atoms, 9), "k must be between 1 and 8, got 9"),
        (lambda: l0_oracle(torch.randn(2, 8), torch.randn(128, 8), 4), "k=4 of n=128 atoms has 10,668,000 supports"),
        (lambda: omp(DATA.test_x, DATA.atoms, 0), "k must be between 1 and n=16, got 0"),
        (lambda: LISTA(DATA.atoms, unrolled=0), "unrolled must be at least 1, got 0"),
        (lambda: optimise(DATA.test_x, DATA.atoms, lr=0.0), "lr must be positive and finite, got 0"),
        (lambda: optimise_curve(DATA.test_x, DATA.atoms, []), "at must name at least one step, got none"),
        (lambda: dl_fista(DATA.test_x, DATA.atoms, rounds=0), "rounds must be at least 1, got 0"),
        (lambda: sparse_coding(DATA.train_x, DATA.atoms[None], steps=5, at=[9]), "at must lie between 0 and steps=5"),
    ],
)
def test_nonsense_is_refused_by_name_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_authors_curve_of_per_sample_optimisation():
    """Stored with the released code: true dictionary, lr 1e-3. To the fourth digit."""
    stored = {1000: 0.6089, 2000: 0.7029, 5000: 0.7387, 10_000: 0.9415, 19_900: 0.9667}
    curve = optimise_curve(DATA.test_x, DATA.atoms, stored)
    found = {step: latent_mcc(DATA.test_codes, codes).item() for step, codes in curve.items()}
    assert found == pytest.approx(stored, abs=1e-4)
