"""Downstream loss: exact where the answer is known."""

import numpy as np
import pytest
import torch

from replication.activations import spread
from replication.evaluate.downstream import (
    by_block,
    compute_share,
    downstream,
    heldout_blocks,
    logits_at,
    subject,
    training_curve,
)
from replication.language_models import embedded
from replication.papers.gao2024.grid import SOURCES

SOURCE = SOURCES["smoke"]


def test_the_identity_costs_nothing_and_zero_is_the_reference():
    kept = downstream(SOURCE, lambda x: x, blocks=8)
    assert kept["delta_ce"] == pytest.approx(0, abs=1e-5) and kept["kl"] == pytest.approx(0, abs=1e-5)
    assert kept["loss_recovered"] == pytest.approx(1, abs=1e-5) and kept["compute_share"] == pytest.approx(1, abs=1e-3)
    zeroed = downstream(SOURCE, torch.zeros_like, blocks=8)
    assert zeroed["delta_ce"] == pytest.approx(zeroed["delta_ce_zero"], abs=1e-5)
    assert zeroed["loss_recovered"] == pytest.approx(0, abs=1e-4) and zeroed["kl"] > 0.1
    model = subject(SOURCE)
    assert kept["ce"] == pytest.approx(model.loss(heldout_blocks(SOURCE, 8)).mean().item(), abs=1e-4)


def test_kl_by_hand():
    """From the reconstructed to the clean predictions: E sum_v p ln(p / q), at all positions but the last."""
    model, tokens = subject(SOURCE), heldout_blocks(SOURCE, 8)
    clean = model.logits(tokens).log_softmax(-1)
    other = model.logits(tokens, {SOURCE.hook: lambda x: 0.5 * x}).log_softmax(-1)
    found = downstream(SOURCE, lambda x: 0.5 * x, blocks=8)
    expected = (clean.exp() * (clean - other)).sum(-1)[:, :-1].mean()
    assert found["kl"] == pytest.approx(expected.item(), rel=1e-4)
    loss = model.loss(tokens, {SOURCE.hook: lambda x: 0.5 * x}).mean() - model.loss(tokens).mean()
    assert found["delta_ce"] == pytest.approx(loss.item(), abs=1e-4)


def test_the_rise_of_each_block_is_that_of_its_own_tokens():
    model, tokens = subject(SOURCE), heldout_blocks(SOURCE, 8)
    found = by_block(SOURCE, lambda x: 0.5 * x, blocks=8)
    before, after = (model.loss(tokens, hooks).mean(-1) for hooks in (None, {SOURCE.hook: lambda x: 0.5 * x}))
    torch.testing.assert_close(found.ce, before, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.delta_ce, after - before, rtol=0, atol=1e-4)
    assert found.kl.shape == (8,) and found.kl.min() > 0


def test_the_mean_control_is_the_mean_over_the_same_tokens():
    model, tokens = subject(SOURCE), heldout_blocks(SOURCE, 8)
    mean = model.activations(tokens, [SOURCE.hook])[SOURCE.hook].flatten(0, 1).mean(0)
    found = downstream(SOURCE, lambda x: mean.expand_as(x), blocks=8)
    assert found["delta_ce"] == pytest.approx(found["delta_ce_mean"], abs=1e-5)


def test_reconstructions_are_measured_on_tokens_that_the_source_holds_out():
    held = SOURCE.heldout_tokens // SOURCE.context
    assert len(heldout_blocks(SOURCE, 8)) == 8 and len(heldout_blocks(SOURCE, 10**6)) == held


def test_numbers_are_spread_from_the_first_to_the_last():
    assert spread(101, 5).tolist() == [0, 25, 50, 75, 100]
    assert spread(3, 9).tolist() == [0, 1, 2] and spread(7, 1).tolist() == [0]
    assert all(len(set(spread(n, m).tolist())) == min(n, m) for n in range(1, 40) for m in range(1, 40))


def test_blocks_come_from_all_of_the_held_out_text():
    text = SOURCE.corpus.build(subject(SOURCE).tokenizer).blocks("heldout", SOURCE.context)
    chosen = heldout_blocks(SOURCE, 3).numpy()
    np.testing.assert_array_equal(chosen, text[[0, round((len(text) - 1) / 2), len(text) - 1]])


def test_logits_at_some_positions_are_those_of_the_whole_pass():
    model, tokens = subject(SOURCE), heldout_blocks(SOURCE, 3)
    at = torch.tensor([[0, 5], [63, 62], [7, 7]])
    patch = {SOURCE.hook: lambda x: 2 * x}
    for patches in (None, patch):
        whole = model.logits(tokens, patches)[torch.arange(3)[:, None], at]
        torch.testing.assert_close(logits_at(model, tokens, at, patches), whole, rtol=1e-4, atol=1e-4)
    assert model.logits(tokens).shape == (3, 64, model.d_vocab)  # nothing is left behind in the model


CURVE = [(10, 5.0), (20, 4.0), (40, 3.5), (80, 3.0)]


@pytest.mark.parametrize(
    "rise, share",
    [
        (0.5, 0.5),  # the loss of 3.5 after 40 of 80 tokens
        (1.0, 0.25),
        (1.5, 2**-2.5),  # half way from 4.0 to 5.0, and half way from 20 to 10 in logarithms
        (2.0, 0.125),
        (9.0, 0.125),  # beyond the first mark: at most its share
        (0.0, 1.0),
        (-0.1, 1.0),
    ],
)
def test_the_equivalent_share_of_compute_is_read_off_the_curve(rise, share):
    assert compute_share(rise, CURVE) == pytest.approx(share)


def test_noise_of_the_curve_is_averaged_not_followed():
    """A dip to 3.2 and back to 3.6 counts as twice 3.4, its mean."""
    noisy = [(10, 5.0), (20, 3.2), (40, 3.6), (80, 3.0)]
    assert compute_share(1.2, noisy) == pytest.approx((20 * 2 ** (-0.8 / 1.6)) / 80)  # from 3.4 at 20 to 5.0 at 10


def test_an_embedded_model_has_a_record_and_a_foreign_one_has_none():
    for row in embedded():
        curve = training_curve(row["name"])
        assert len(curve) >= 10 and [tokens for tokens, _ in curve] == sorted(tokens for tokens, _ in curve)
        assert curve[0][1] > curve[-1][1]
    assert training_curve("openai-community/gpt2") == []
