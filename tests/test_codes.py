"""Refits against scipy's solver, and rules of selection on numbers a reader can check."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from replication.evaluate.codes import (
    TOLERANCE,
    keep_above,
    keep_largest,
    largest_reconstructions,
    nonnegative_fit,
    optimality_gap,
    patch,
    positives,
    reconstructions,
    refine,
    thresholds,
)
from replication.evaluate.downstream import downstream
from replication.papers.gao2024.grid import SOURCES
from replication.sae.relu import ReLU
from replication.sae.topk import TopK

ACTIVATIONS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


def drawn(kind, sparsity: float, d_sae: int = 24):
    return kind(6, d_sae, sparsity, generator=torch.Generator().manual_seed(1))


def test_a_shrunken_code_is_stretched_back():
    """Orthogonal rows: the best latents are the inner products, whatever they were before; inactive ones stay 0."""
    sae = ReLU(2, 2, 1.0)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(2))
        sae.b_dec.copy_(torch.tensor([1.0, 0.0]))
    x = torch.tensor([[3.0, 5.0], [3.0, 5.0], [-1.0, 5.0]])
    latents = torch.tensor([[0.5, 0.5], [0.5, 0.0], [0.5, 0.5]])
    refined = refine(sae, x, latents)
    assert refined.tolist() == [[2, 5], [2, 0], [0, 5]]  # x - b_dec is (2, 5) and (-2, 5); -2 is not allowed
    assert optimality_gap(sae, x, latents, refined) == 0
    assert optimality_gap(sae, x, latents, latents) == 4.5  # the second latent of the first token should grow by 4.5


def test_overlapping_rows_by_hand():
    """Rows (1, 0) and (0.6, 0.8), x = (1, -1): the second can only hurt, so the best code is (1, 0)."""
    gram, target = torch.tensor([[[1, 0.6], [0.6, 1]]]).double(), torch.tensor([[1, -0.2]]).double()
    support = torch.ones(1, 2, dtype=torch.bool)
    assert nonnegative_fit(gram, target, support)[0].tolist() == pytest.approx([1, 0])
    target = torch.tensor([[1.6, 1.6]]).double()  # x = the sum of both rows
    assert nonnegative_fit(gram, target, support)[0].tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("kind", "sparsity", "d_sae"), [(TopK, 4, 24), (ReLU, 1.0, 12), (ReLU, 1.0, 40)])
def test_every_token_has_scipys_solution(kind, sparsity, d_sae):
    """The last case has far more active latents than dimensions: the code is not unique, the reconstruction is."""
    sae = drawn(kind, sparsity, d_sae)
    latents = sae.encode(ACTIVATIONS).detach()
    refined = refine(sae, ACTIVATIONS, latents)
    assert optimality_gap(sae, ACTIVATIONS, latents, refined) < TOLERANCE
    for x, before, after in zip(ACTIVATIONS, latents, refined, strict=True):
        on = before > 0
        rows, residual = sae.W_dec[on].detach().double().numpy(), (x - sae.b_dec).detach().double().numpy()
        reference, _ = nnls(rows.T, residual)
        np.testing.assert_allclose(after[on].double().numpy() @ rows, reference @ rows, atol=2e-5)
        assert not after[~on].any()
        if on.sum() <= 6:
            np.testing.assert_allclose(after[on].numpy(), reference, atol=2e-5)


def test_a_fit_never_hurts_and_fitting_twice_changes_nothing():
    sae = drawn(TopK, 4)
    latents = sae.encode(ACTIVATIONS).detach()
    refined = refine(sae, ACTIVATIONS, latents)
    before, after = ((sae.decode(z) - ACTIVATIONS).square().sum(-1) for z in (latents, refined))
    assert (after <= before + 1e-6).all() and after.sum() < 0.9 * before.sum()
    torch.testing.assert_close(refine(sae, ACTIVATIONS, refined), refined, atol=1e-5, rtol=0)


def test_tokens_without_active_latents_stay_empty():
    assert not refine(drawn(TopK, 4), ACTIVATIONS, torch.zeros(40, 24)).any()


def test_selection_rules():
    pre = torch.tensor([[3.0, -1.0, 1.0, 2.0], [-3.0, -1.0, 0.5, -2.0]])
    assert keep_largest(pre, 2).tolist() == [[3, 0, 0, 2], [0, 0, 0.5, 0]]  # the second token has one positive
    assert keep_largest(pre, 9).tolist() == pre.relu().tolist()
    assert keep_above(pre, 1.0).tolist() == [[3, 0, 0, 2], [0, 0, 0, 0]]


def test_topk_at_its_own_k_is_the_autoencoder():
    sae = drawn(TopK, 4)
    torch.testing.assert_close(keep_largest(sae.pre(ACTIVATIONS), 4), sae.encode(ACTIVATIONS))


def test_a_threshold_gives_the_mean_l0_that_was_asked_for():
    sae = drawn(ReLU, 1.0)
    wanted = [1.0, 2.5, 4.0]
    for l0, cut in zip(wanted, thresholds(sae, ACTIVATIONS, wanted), strict=True):
        assert (sae.pre(ACTIVATIONS) > cut).sum() / 40 == l0
    assert thresholds(sae, ACTIVATIONS, [24.0]) == [0.0]  # fewer are positive
    with pytest.raises(ValueError, match="l0 must be above 1 / 40"):
        thresholds(sae, ACTIVATIONS, [0.0])


def test_reconstructions_in_chunks_are_those_of_the_whole(monkeypatch):
    sae = drawn(TopK, 4)
    rules = [lambda pre: keep_largest(pre, 4), lambda pre: keep_above(pre, 0.0)]
    whole = reconstructions(sae, ACTIVATIONS, rules)
    monkeypatch.setattr("replication.evaluate.codes.LATENTS_AT_ONCE", 7 * 24)
    for (recon, l0), (expected, expected_l0) in zip(reconstructions(sae, ACTIVATIONS, rules), whole, strict=True):
        torch.testing.assert_close(recon, expected)
        assert l0 == expected_l0
    torch.testing.assert_close(whole[0][0], sae(ACTIVATIONS).recon.detach())
    assert whole[0][1] == sae.encode(ACTIVATIONS).count_nonzero() / 40


def test_reconstructions_from_one_sort_are_those_of_each_rule(monkeypatch):
    sae, ks = drawn(TopK, 4), [1, 4, 4, 9, 24]  # 24: more than are positive
    monkeypatch.setattr("replication.evaluate.codes.LATENTS_AT_ONCE", 7 * 24)
    each = reconstructions(sae, ACTIVATIONS, [lambda pre, k=k: keep_largest(pre, k) for k in ks])
    for (recon, l0), (expected, expected_l0) in zip(largest_reconstructions(sae, ACTIVATIONS, ks), each, strict=True):
        torch.testing.assert_close(recon, expected.detach(), atol=1e-5, rtol=1e-5)
        assert l0 == expected_l0
    with pytest.raises(ValueError, match="ks must ascend"):
        largest_reconstructions(sae, ACTIVATIONS, [4, 1])


def test_no_rule_makes_more_latents_active_than_are_positive():
    sae = drawn(TopK, 4)
    count = positives(sae, ACTIVATIONS)
    assert count.tolist() == (sae.pre(ACTIVATIONS) > 0).sum(-1).tolist()
    kept = keep_largest(sae.pre(ACTIVATIONS), 13).count_nonzero(-1)
    assert kept.tolist() == count.clamp(max=13).tolist() and (kept < 13).any()


def test_a_patch_of_the_own_code_is_the_autoencoder_downstream():
    source = SOURCES["smoke"]
    sae = TopK(source.d_in, 64, 4, generator=torch.Generator().manual_seed(0), normalisation="gao")
    own = downstream(source, sae.reconstruct, blocks=2)
    assert downstream(source, patch(sae, sae.encode), blocks=2)["delta_ce"] == pytest.approx(own["delta_ce"], abs=1e-6)
