"""How latents behave: numbers that can be checked by hand, and gradients against a finite difference."""

import math

import pytest
import torch

from replication.evaluate import behaviour
from replication.evaluate.downstream import heldout_blocks, subject
from replication.papers.jumprelu2024.grid import source
from replication.sae import architecture

SOURCE = source("smoke", "res", 1)
EARLY = source("smoke", "res", 0)


def test_importance_is_the_latent_times_what_its_row_does():
    W_dec = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    found = behaviour.importance(torch.tensor([[2.0, 0.0, 1.0]]), W_dec, torch.tensor([[3.0, -1.0]]))
    torch.testing.assert_close(found, torch.tensor([[6.0, 0.0, 1.0]]))


def test_equal_importance_is_spread_over_all_active_latents():
    """p = 1/4 four times: S = ln 4, e^S = 4 of 4."""
    effective, ratio = behaviour.uniformity(torch.tensor([[2.0, -2.0, 2.0, 2.0, 0.0]]))
    assert effective.item() == pytest.approx(4) and ratio.item() == pytest.approx(1)


def test_uniformity_by_hand():
    """p = (1/2, 1/4, 1/4): S = 1.5 ln 2, e^S = 2^1.5 = 2.83, r = 0.94. One latent: e^S = 1, r = 1."""
    effective, ratio = behaviour.uniformity(torch.tensor([[2.0, 1.0, -1.0, 0.0], [0.0, 0.0, 5.0, 0.0]]))
    assert effective.tolist() == pytest.approx([2**1.5, 1]) and ratio.tolist() == pytest.approx([2**1.5 / 3, 1])


def test_the_ratio_lies_between_one_over_l0_and_one():
    y = torch.randn(200, 30) * (torch.rand(200, 30) < 0.3) * torch.logspace(-4, 4, 30)
    effective, ratio = behaviour.uniformity(y)
    active = (y != 0).sum(-1)
    kept = active > 0
    assert (ratio[kept] <= 1 + 1e-5).all() and (ratio[kept] * active[kept] >= 1 - 1e-5).all()
    assert ratio[~kept].isnan().all() and effective[~kept].isnan().all()


def test_uniformity_does_not_depend_on_a_scale():
    y = torch.randn(5, 8)
    torch.testing.assert_close(behaviour.uniformity(y), behaviour.uniformity(1e3 * y), rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_a_finite_difference():
    """Change of m = logit(correct) - mean logit with the activation at that place alone moved along the gradient."""
    model, tokens = subject(EARLY), heldout_blocks(EARLY, 4)
    x, gradient = behaviour.gradients(EARLY, 4)
    at = torch.randint(EARLY.skip_first, EARLY.context - 1, (4,), generator=torch.Generator().manual_seed(0))
    rows = torch.arange(4)
    direction = gradient / gradient.norm(dim=-1, keepdim=True)

    def margin(step: float) -> torch.Tensor:
        def patch(activation):
            moved = activation.clone()
            moved[rows, at] += step * direction
            return moved

        logits = model.logits(tokens, {EARLY.hook: patch})[rows, at]
        return logits[rows, tokens[rows, at + 1]] - logits.mean(-1)

    with torch.no_grad():
        slope = (margin(0.01) - margin(-0.01)) / 0.02
    torch.testing.assert_close(slope, gradient.norm(dim=-1), rtol=0.02, atol=1e-3)
    torch.testing.assert_close(x, model.activations(tokens, [EARLY.hook])[EARLY.hook][rows, at])
    assert model.logits(tokens).shape == (4, EARLY.context, model.d_vocab)  # nothing is left behind in the model


def test_a_perfect_reconstruction_has_the_gradient_of_the_activation():
    at_x, at_recon = behaviour.gradients(EARLY, 4), behaviour.gradients_at_recon(EARLY, lambda x: x, 4)
    torch.testing.assert_close(at_x, at_recon)
    other = behaviour.gradients_at_recon(EARLY, lambda x: 0.5 * x, 4)
    torch.testing.assert_close(other.x, at_x.x)  # the activation itself, not what stands in for it
    assert not torch.allclose(other.gradient, at_x.gradient, rtol=0.1)


def test_diffusion_of_an_sae_lies_within_its_bounds():
    sae = architecture("topk")(SOURCE.d_in, 32, 4, generator=torch.Generator().manual_seed(0))
    found = behaviour.diffusion(sae, SOURCE, places=16)
    assert found["active_here"] == pytest.approx(4, abs=0.5)
    for side in ("x", "recon", "other"):
        assert 1 <= found[f"effective_{side}"] <= 4 and 0.25 <= found[f"ratio_{side}"] <= 1


def test_rows_and_tokens_belong_together():
    tokens = behaviour.heldout_tokens(SOURCE)
    x = SOURCE.heldout()
    assert len(tokens) == len(x)
    blocks = heldout_blocks(SOURCE, 2)
    first = subject(SOURCE).activations(blocks[:1], [SOURCE.hook])[SOURCE.hook][0, SOURCE.skip_first :]
    alike = torch.nn.functional.cosine_similarity(x[: len(first)], first)
    assert alike.min() > 0.98  # harvested and stored in bfloat16
    torch.testing.assert_close(tokens[: len(first)], blocks[0, SOURCE.skip_first :])


def test_correlation_by_hand():
    a = torch.tensor([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0], [3.0, 1.0, 0.0], [4.0, 0.0, 0.0]])
    b = torch.tensor([[2.0, 0.0, 1.0], [4.0, 1.0, 2.0], [6.0, 0.0, 3.0], [8.0, 1.0, 4.0]])
    one, minus_one, constant = behaviour.correlation(a, b).tolist()
    assert one == pytest.approx(1) and minus_one == pytest.approx(-1) and math.isnan(constant)


def test_a_latent_of_one_token_scores_one_and_a_random_one_nothing():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 10, (4000,), generator=generator)
    random = torch.rand(4000, generator=generator) < 0.5
    of_half = (tokens < 5) & random
    latents = torch.stack([tokens == 3, tokens < 5, random, of_half, torch.arange(4000) < 3], dim=1).float()
    one, frequent, nothing, half, rare = behaviour.token_scores(latents, tokens, d_vocab=12, least=20).tolist()
    assert [one, frequent] == pytest.approx([1, 1], abs=1e-4)  # however often it is active
    assert nothing == pytest.approx(0, abs=0.05) and math.isnan(rare)
    assert half == pytest.approx(3**-0.5, abs=0.04)  # var E[f | token] / var f = (1/16) / (3/16)


def test_a_token_of_one_half_alone_predicts_nothing_in_the_other():
    tokens = torch.tensor([0, 1, 0, 1, 2, 3, 2, 3])
    latents = torch.tensor([0.0, 1, 0, 1, 0, 1, 0, 1])[:, None]
    assert behaviour.token_scores(latents, tokens, d_vocab=4, least=1).tolist() == [0]


def test_latents_of_a_given_frequency():
    """Column 0 is 1 to 10: half of them are above the quantile. Column 1 is above 0 on 3 rows alone."""
    up = torch.arange(1.0, 11)
    found = behaviour.at_frequencies(torch.stack([up, up - 7.5], dim=1), torch.tensor([0.5, 0.9]))
    assert found[:, 0].tolist() == [0, 0, 0, 0, 0, 6, 7, 8, 9, 10]
    assert found[:, 1].tolist() == [0] * 7 + [0.5, 1.5, 2.5]


def test_means_in_bins():
    values = torch.tensor([1.0, 3.0, torch.nan, 5.0, 7.0])
    counts, means = behaviour.in_bins(values, torch.tensor([0.0, 0.5, 0.5, 1.0, 3.0]), torch.tensor([0.0, 1, 2, 3]))
    assert counts == [2, 1, 1] and means == [2, 5, 7]
    assert behaviour.in_bins(values[:2], torch.tensor([0.0, 2.5]), torch.tensor([0.0, 1, 2, 3]))[1] == [1, None, 3]


def test_errors_by_position_average_to_the_error_over_all():
    sae = architecture("topk")(SOURCE.d_in, 32, 4, generator=torch.Generator().manual_seed(0))
    error, variance = behaviour.error_by_position(sae, SOURCE)
    x = SOURCE.heldout()
    assert error.shape == variance.shape == (SOURCE.context - SOURCE.skip_first,)
    with torch.no_grad():
        everywhere = (x - sae(x).recon).square().sum(-1).mean()
    assert error.mean().item() == pytest.approx(everywhere.item(), rel=1e-4)
    assert variance.mean() < (x - x.mean(0)).square().sum(-1).mean()  # within positions only


def test_harm_by_position_is_where_the_reconstruction_is_wrong():
    kept = behaviour.harm_by_position(SOURCE, lambda x: x, blocks=8)
    assert kept.shape == (SOURCE.context - 1 - SOURCE.skip_first,)
    torch.testing.assert_close(kept, torch.zeros_like(kept), rtol=0, atol=1e-4)
    zeroed = behaviour.harm_by_position(SOURCE, torch.zeros_like, blocks=8)
    model, tokens = subject(SOURCE), heldout_blocks(SOURCE, 8)

    def all_but_first(activation):
        return torch.cat([activation[:, :1], torch.zeros_like(activation[:, 1:])], dim=1)

    by_hand = model.loss(tokens, {SOURCE.hook: all_but_first}) - model.loss(tokens)
    torch.testing.assert_close(zeroed, by_hand.mean(0)[1:])
