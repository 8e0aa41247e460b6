"""Released counts as published, and the share of matrix products counted again by torch."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from replication.inference import LISTA, Encoder, authors_start, flops

M, N, H, SAMPLES = 8, 16, 32, 10


def counted(call) -> int:
    """What torch counts of matrix products: 2 m n k each, forward and backward, nothing for anything else."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_released_counts():
    assert flops.sae_training(M, N, learned=False, released=True).of(1) == 1360
    assert flops.sae_training(M, N, learned=True, released=True).of(1) == 1744
    assert [flops.mlp_training(M, N, h, True, True).of(1) for h in (32, 256, 1024)] == [5744, 39_120, 153_552]
    assert flops.sae_inference(M, N).of(1024) == 540_672
    assert flops.optimisation(M, N, 10_000).of(1024) == pytest.approx(7.21e9, rel=1e-3)
    assert flops.optimisation(M, N, 1).of(1) - flops.optimisation(M, N, 0).of(1) == 704
    assert flops.sparse_coding_training(M, N, released=True, samples=1024).of(1024) == pytest.approx(5.25e7, rel=1e-3)
    assert flops.fista_inference(M, N, 100).of(1024) == pytest.approx(6e7, rel=0.05)


def test_stored_totals_of_the_known_dictionary_and_known_codes():
    assert flops.sae_training(M, N, False, True).of(1024) * 19_901 == pytest.approx(2.77e10, rel=1e-3)
    assert flops.optimisation(M, N, 19_901).of(1024) == pytest.approx(1.43e10, rel=5e-3)
    assert flops.mlp_training(M, N, 32, False, True).of(1024) * 19_901 == pytest.approx(1.09e11, rel=1e-2)


def test_sparse_coding_corrected():
    corrected = flops.sparse_coding_training(M, N).of(1024)
    assert corrected == pytest.approx(8.86e5, rel=1e-3)
    released = flops.sparse_coding_training(M, N, released=True, samples=1024).of(1024)
    assert released / corrected == pytest.approx(59.2, abs=0.05)
    assert corrected / flops.sae_training(M, N, True, True).of(1024) == pytest.approx(0.50, abs=0.005)
    assert corrected / flops.sae_training(M, N, True).of(1024) == pytest.approx(0.65, abs=0.005)
    with pytest.raises(ValueError, match="samples must be given for the released formula, got None"):
        flops.sparse_coding_training(M, N, released=True)


@pytest.mark.parametrize("hidden", [None, H])
@pytest.mark.parametrize("learned", [False, True])
def test_matrix_products_of_training(hidden, learned):
    models = authors_start(Encoder(hidden=hidden), M, N, [0])
    weights = [weight[0].requires_grad_() for weight in models.weights]
    dictionary = models.dictionary[0].requires_grad_(learned)
    x = torch.randn(SAMPLES, M)

    def step():
        z = x
        for weight in weights:
            z = (z @ weight).relu()
        (x - z @ dictionary).square().mean().backward()

    cost = flops.sae_training(M, N, learned) if hidden is None else flops.mlp_training(M, N, H, learned)
    assert cost.matmul * SAMPLES == counted(step)


@pytest.mark.parametrize("learned", [False, True])
def test_matrix_products_of_sparse_coding(learned):
    q, dictionary = torch.randn(SAMPLES, N, requires_grad=True), torch.randn(N, M, requires_grad=learned)
    x = torch.randn(SAMPLES, M)
    cost = flops.sparse_coding_training(M, N, learned)
    assert cost.matmul * SAMPLES == counted(lambda: (x - q.exp() @ dictionary).square().mean().backward())


def test_matrix_products_of_inference():
    x, dictionary = torch.randn(SAMPLES, M), torch.randn(N, M)
    models = authors_start(Encoder(), M, N, [0]), authors_start(Encoder(hidden=H), M, N, [0])
    decoded = [counted(lambda one=one: one.encode(x[None]) @ one.dictionary) for one in models]
    assert decoded == [flops.sae_inference(M, N).matmul * SAMPLES, flops.mlp_inference(M, N, H).matmul * SAMPLES]
    lista = LISTA(dictionary, unrolled=4)
    assert counted(lambda: lista(x)) == flops.lista_inference(M, N, 4).matmul * SAMPLES
    z = torch.zeros(SAMPLES, N)
    assert counted(lambda: (z @ dictionary - x) @ dictionary.T) == flops.fista_inference(M, N, 1).matmul * SAMPLES
