"""Downstream loss: exact where the answer is known."""

import pytest
import torch

from replication.evaluate.downstream import downstream, heldout_blocks, subject
from replication.papers.gao2024.grid import SOURCES

SOURCE = SOURCES["smoke"]


def test_the_identity_costs_nothing_and_zero_is_the_reference():
    kept = downstream(SOURCE, lambda x: x, blocks=8)
    assert kept["delta_ce"] == pytest.approx(0, abs=1e-5) and kept["kl"] == pytest.approx(0, abs=1e-5)
    assert kept["loss_recovered"] == pytest.approx(1, abs=1e-5)
    zeroed = downstream(SOURCE, torch.zeros_like, blocks=8)
    assert zeroed["delta_ce"] == pytest.approx(zeroed["delta_ce_zero"], abs=1e-5)
    assert zeroed["loss_recovered"] == pytest.approx(0, abs=1e-4) and zeroed["kl"] > 0.1
    model = subject(SOURCE)
    assert kept["ce"] == pytest.approx(model.loss(heldout_blocks(SOURCE, 8)).mean().item(), abs=1e-4)


def test_the_mean_control_is_the_mean_over_the_same_tokens():
    model, tokens = subject(SOURCE), heldout_blocks(SOURCE, 8)
    mean = model.activations(tokens, [SOURCE.hook])[SOURCE.hook].flatten(0, 1).mean(0)
    found = downstream(SOURCE, lambda x: mean.expand_as(x), blocks=8)
    assert found["delta_ce"] == pytest.approx(found["delta_ce_mean"], abs=1e-5)
