"""ProLU: the gate at its four cases and both stand-ins for its derivative, by hand."""

import pytest
import test_sae
import torch

from replication.sae.prolu import ProLU, prolu

D_IN, D_SAE = test_sae.D_IN, test_sae.D_SAE
NONE_DEAD = test_sae.NONE_DEAD

M = torch.tensor([[3.0, 3.0, -3.0, -3.0, 2.0], [1.0, 1.0, 1.0, 1.0, 5.0]])
B = torch.tensor([-1.0, -4.0, 4.0, -1.0, 0.0])
GATE = torch.tensor([[1.0, 0, 0, 0, 1], [0, 0, 1, 0, 1]])  # the gate is shut where m + b = 0: row 2, column 1


def random_sae(sparsity: float = 0.1, **options) -> ProLU:
    generator = torch.Generator().manual_seed(0)
    sae = ProLU(D_IN, D_SAE, sparsity, generator=generator, **options)
    with torch.no_grad():
        sae.b_enc.copy_(torch.randn(D_SAE, generator=generator) * 0.3)
        sae.b_dec.copy_(torch.randn(D_IN, generator=generator) * 0.3)
    return sae


def test_forward_opens_only_where_both_are_positive():
    assert torch.equal(prolu(M, B), M * GATE)


def test_the_bias_gates_and_does_not_shift():
    sae = ProLU(1, 2, 0.1)
    with torch.no_grad():
        sae.W_enc.fill_(1)
        sae.b_enc.copy_(torch.tensor([-1.0, 1.0]))
    x = torch.tensor([[3.0], [0.5], [-0.5]])
    torch.testing.assert_close(sae(x).latents, torch.tensor([[3, 3], [0, 0.5], [0, 0]]))


@pytest.mark.parametrize(
    "gradient, into_m, into_b",
    [("relu", GATE, GATE), ("ste", GATE * (1 + M), GATE * M)],
)
def test_backward_by_hand(gradient, into_m, into_b):
    incoming = torch.tensor([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    m, b = M.clone().requires_grad_(), B.clone().requires_grad_()
    prolu(m, b, gradient).backward(incoming)
    assert torch.equal(m.grad, incoming * into_m)
    assert torch.equal(b.grad, (incoming * into_b).sum(0))


def test_objective_by_hand():
    sae = ProLU(2, 2, 0.5)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
        sae.b_enc.copy_(torch.tensor([-1.0, -5.0]))
    objective = sae.objective(torch.tensor([[3.0, 4.0]]), torch.empty(0, dtype=torch.int64), ramp=0.5)
    assert objective.error == 16  # 4 does not reach the gate at 5, and 3 comes through whole
    assert objective.loss == 16 + 0.5 * 0.5 * 3
    assert objective.fired.tolist() == [True, False]


@pytest.mark.parametrize("gradient", ["relu", "ste"])
def test_gradients_reach_the_parameters_by_the_chain_rule(gradient):
    """Encoder and bias of the objective, and of the plain forward, against the two backward rules written out."""
    sae, x = random_sae(0.3, gradient=gradient).double(), test_sae.batch().double()
    m = ((x - sae.b_dec) @ sae.W_enc).detach()
    gate = ((m > 0) & (m + sae.b_enc > 0)).double()
    incoming = gate * (-2 * (x - sae(x).recon) @ sae.W_dec.T + 0.3).detach() / len(x)
    into_m, into_b = (incoming, incoming) if gradient == "relu" else (incoming * (1 + m), incoming * m)
    out = sae(x)
    plain = (x - out.recon).square().sum(-1).mean() + 0.3 * out.latents.sum(-1).mean()
    for loss in (sae.objective(x, NONE_DEAD).loss, plain):
        W_enc, b_enc = torch.autograd.grad(loss, [sae.W_enc, sae.b_enc])
        torch.testing.assert_close(W_enc, (x - sae.b_dec).T @ into_m)
        torch.testing.assert_close(b_enc, into_b.sum(0))


@pytest.mark.parametrize("gradient", ["relu", "ste"])
def test_half_precision_products_leave_sums_in_full(gradient):
    sae, x = random_sae(gradient=gradient), test_sae.batch()
    with torch.autocast("cpu", torch.bfloat16):
        objective = sae.objective(x, NONE_DEAD)
    objective.loss.backward()
    assert objective.loss.dtype == torch.float32 == sae.b_enc.grad.dtype
    torch.testing.assert_close(objective.loss, sae.objective(x, NONE_DEAD).loss, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("gradient", ["relu", "ste"])
def test_training_lowers_the_error_and_moves_the_biases(gradient):
    sae, steps = ProLU(D_IN, D_SAE, 0.2, gradient=gradient, generator=torch.Generator().manual_seed(0)), []
    optimiser = torch.optim.Adam(sae.parameters(), lr=3e-3)
    sae.initialise(test_sae.batch(n=512))
    for seed in range(200):
        steps.append(sae.objective(test_sae.batch(seed, n=64), NONE_DEAD))
        steps[-1].loss.backward()
        sae.before_step()
        optimiser.step()
        optimiser.zero_grad()
        sae.after_step()
    first, last = (torch.stack([o.error for o in part]).mean() for part in (steps[:5], steps[-5:]))
    assert last < 0.6 * first and sae.b_enc.abs().max() > 0.1


def test_an_unknown_gradient_is_refused_by_name_and_value():
    with pytest.raises(ValueError, match="gradient.*relu.*ste.*'straight'"):
        ProLU(D_IN, D_SAE, 0.1, gradient="straight")
