"""JumpReLU: its pseudo-derivatives by hand, against the density estimate they are, against the true gradient."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import test_sae
import torch

from replication import kernels
from replication.activations import Gaussian
from replication.sae.jumprelu import KERNELS, JumpReLU, jumprelu, step
from replication.train import Run, train

D_IN, D_SAE = test_sae.D_IN, test_sae.D_SAE
NONE_DEAD = test_sae.NONE_DEAD


def make(sparsity: float = 0.1, **options) -> JumpReLU:
    return JumpReLU(D_IN, D_SAE, sparsity, generator=torch.Generator().manual_seed(0), **options)


def gradients(sae: JumpReLU, x: torch.Tensor, ramp: float = 1.0) -> dict[str, torch.Tensor]:
    sae.zero_grad()
    sae.objective(x, NONE_DEAD, ramp).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_symmetric_and_integrate_to_one(kernel):
    u = (torch.arange(-8000, 8000, dtype=torch.float64) + 0.5) / 1000
    values = KERNELS[kernel](u)
    assert values.sum() / 1000 == pytest.approx(1, abs=1e-6)
    assert values.dtype == u.dtype and torch.equal(values, values.flip(0)) and (values >= 0).all()


def test_kernels_by_hand():
    at = {name: kernel(torch.tensor([0.0, 0.4, 0.75, 2.0])) for name, kernel in KERNELS.items()}
    assert at["rectangle"].tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(at["triangle"], torch.tensor([1, 0.6, 0.25, 0]))
    torch.testing.assert_close(at["epanechnikov"], torch.tensor([0.75, 0.63, 0.328125, 0]))
    assert at["gaussian"][0].item() == pytest.approx(1 / math.sqrt(2 * math.pi))


PRE = torch.tensor([[0.3, 0.45, 0.5, 0.55, 0.9, -0.5]])  # window of bandwidth 0.2 around theta = 0.5: (0.4, 0.6)
IN_WINDOW = torch.tensor([0.0, 1, 1, 1, 0, 0])
ACTIVE = torch.tensor([0.0, 0, 0, 1, 1, 0])


def test_forward_by_hand_the_threshold_itself_is_inactive():
    theta = torch.full((6,), 0.5)
    assert torch.equal(jumprelu(PRE, theta, 0.2), PRE * ACTIVE)
    assert torch.equal(step(PRE, theta, 0.2), ACTIVE[None])


@pytest.mark.parametrize("into_pre", [False, True])
def test_pseudo_derivatives_by_hand(into_pre):
    incoming = torch.tensor([[1.0, 2, 3, 4, 5, 6]])
    for function, height, ordinary in ((jumprelu, 0.5 / 0.2, ACTIVE), (step, 1 / 0.2, torch.zeros(6))):
        pre, theta = PRE.clone().requires_grad_(), torch.full((6,), 0.5, requires_grad=True)
        (function(pre, theta, 0.2, "rectangle", into_pre) * incoming).sum().backward()
        torch.testing.assert_close(theta.grad, -height * (incoming[0] * IN_WINDOW))
        expected = incoming * (ordinary + into_pre * height * IN_WINDOW)
        torch.testing.assert_close(torch.zeros(1, 6) if pre.grad is None else pre.grad, expected)


def test_objective_by_hand():
    sae = JumpReLU(2, 2, 0.25, threshold=2.0)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
    objective = sae.objective(torch.tensor([[3.0, 1.5], [0.5, 1.0]]), torch.empty(0, dtype=torch.int64), ramp=0.5)
    assert objective.error == (1.5**2 + 0.5**2 + 1) / 2  # 3 comes through whole, the rest is lost
    assert objective.loss == objective.error + 0.5 * 0.25 * 0.5  # one active latent on two tokens
    assert objective.fired.tolist() == [True, False]


def test_target_l0_by_hand():
    x = test_sae.batch()
    l0 = make()(x).latents.count_nonzero() / len(x)
    objective = make(0.3, target_l0=2.0).objective(x, NONE_DEAD, ramp=0.5)
    torch.testing.assert_close(objective.loss - objective.error, 0.5 * 0.3 * (l0 / 2 - 1) ** 2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradient_of_the_threshold_is_the_kernel_density_estimate(kernel):
    """(1/(N e)) sum_a (I_i(x_a) - lambda) K((pre_i - theta_i)/e),  I_i = 2 theta_i d_i . (x - recon)."""
    sae = make(0.7, bandwidth=0.4, threshold=0.3, kernel=kernel).double()
    x = test_sae.batch(n=64).double()
    with torch.no_grad():
        residual = x - sae(x).recon
        gain = 2 * sae.theta * (residual @ sae.W_dec.T)
        expected = ((gain - 0.7) * KERNELS[kernel]((sae.pre(x) - sae.theta) / 0.4)).sum(0) / (64 * 0.4)
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(gradients(sae, x)["theta_raw"], expected)


def test_the_estimate_approaches_the_gradient_of_the_expected_loss_as_the_window_narrows():
    """Moving all thresholds together: sum of the pseudo-gradient against a central difference of the mean loss.

    The property of sec. 4 of the paper, on a set-up of our own: 200,000 tokens, d_in 8, 16 latents.
    """
    n, generator = 200_000, torch.Generator().manual_seed(0)
    x = torch.randn(n, 8, dtype=torch.float64, generator=generator)
    sae = JumpReLU(8, 16, 0.3, threshold=0.3, generator=torch.Generator().manual_seed(1)).double()
    nobody = torch.empty(0, dtype=torch.int64)
    losses = []
    with torch.no_grad():
        for theta in (0.32, 0.28):
            sae.theta_raw.fill_(theta)
            losses.append(sae.objective(x, nobody).loss.item())
        sae.theta_raw.fill_(0.3)
    true = (losses[0] - losses[1]) / 0.04
    biases = []
    for bandwidth in (0.4, 0.2, 0.1, 0.05):
        sae.bandwidth = bandwidth
        (estimate,) = torch.autograd.grad(sae.objective(x, nobody).loss, sae.theta_raw)
        biases.append(abs(estimate.sum().item() / true - 1))
    assert all(wide > 1.5 * narrow for wide, narrow in pairwise(biases)) and biases[-1] < 0.03, (true, biases)


@pytest.mark.parametrize("into_pre", [False, True])
def test_the_penalty_reaches_the_encoder_only_when_told_to(into_pre):
    sae, x = make(bandwidth=0.5, threshold=0.3, ste_into_pre=into_pre), test_sae.batch()
    without, with_penalty = gradients(sae, x, ramp=0.0), gradients(sae, x, ramp=1.0)
    changed = {name for name in without if not torch.equal(without[name], with_penalty[name])}
    assert changed == ({"theta_raw", "W_enc", "b_enc", "b_dec"} if into_pre else {"theta_raw"})


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("into_pre", [False, True])
def test_the_step_in_turns_equals_the_reference(into_pre, kernel, monkeypatch):
    monkeypatch.setattr(kernels, "TURN_ELEMENTS", 3 * D_SAE)  # 64 tokens: the last turn is shorter
    sae = make(bandwidth=0.5, threshold=0.3, ste_into_pre=into_pre, kernel=kernel).double()
    x = test_sae.batch().double()
    pre = sae.pre(x)
    estimator = (sae.theta, sae.bandwidth, kernel, into_pre)
    error = (x - sae.decode(jumprelu(pre, *estimator))).square().sum(-1).mean()
    loss = error + 0.1 * step(pre, *estimator).sum(-1).mean()
    objective = sae.objective(x, NONE_DEAD)
    torch.testing.assert_close(objective.loss, loss)
    assert torch.equal(objective.fired, (pre > sae.theta).any(0))
    parameters = list(sae.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(one, parameters) for one in (objective.loss, loss)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_raw_threshold_stays_at_zero_or_above():
    sae = make()
    with torch.no_grad():
        sae.theta_raw[:3] = torch.tensor([-0.2, 0.0, 0.2])
    sae.clamp_parameters()
    torch.testing.assert_close(sae.theta[:3], torch.tensor([0, 0, 0.2]))


def test_a_logarithmic_threshold_gives_the_same_sae_and_is_free_to_be_negative():
    raw, log, x = make(threshold=0.3), make(threshold=0.3, log_threshold=True), test_sae.batch()
    torch.testing.assert_close(log.theta, raw.theta)
    torch.testing.assert_close(log(x), raw(x))
    chain = gradients(make(threshold=0.3, bandwidth=0.4), x)["theta_raw"] * 0.3
    torch.testing.assert_close(gradients(make(threshold=0.3, bandwidth=0.4, log_threshold=True), x)["theta_raw"], chain)
    log.clamp_parameters()
    assert log.theta_raw.max() < 0


def test_half_precision_products_leave_sums_and_thresholds_in_full():
    sae, x = make(threshold=0.3, bandwidth=0.4), test_sae.batch()
    with torch.autocast("cpu", torch.bfloat16):
        objective = sae.objective(x, NONE_DEAD)
    objective.loss.backward()
    assert objective.loss.dtype == torch.float32 == sae.theta_raw.grad.dtype
    torch.testing.assert_close(objective.loss, sae.objective(x, NONE_DEAD).loss, rtol=0.02, atol=0.02)


def test_half_precision_does_not_round_pre_activations_out_of_the_window():
    """Between 0.25 and 0.5 bfloat16 moves in steps of 0.002, twice the paper's window: theta would stop there."""
    sae = JumpReLU(1, 1, 0.1, threshold=0.2503)
    with torch.no_grad():
        sae.W_enc.fill_(1)
    with torch.autocast("cpu", torch.bfloat16):
        objective = sae.objective(torch.tensor([[0.2507]]), torch.empty(0, dtype=torch.int64))
    objective.loss.backward()
    assert objective.fired.all() and sae.theta_raw.grad.abs() > 1


def test_training_lowers_the_error_and_a_larger_lambda_leaves_fewer_active():
    run = Run(Gaussian(D_IN, 512), "jumprelu", D_SAE, 0.01, tokens=12800, batch=64, lr=1e-2, dead_after=10**6)
    run = replace(run, options={"bandwidth": 0.3, "threshold": 0.1})
    few, many = (next(train([replace(run, sparsity=sparsity)])) for sparsity in (0.5, 0.01))
    x = run.source.heldout()
    errors = [(x - sae(x).recon).square().sum(-1).mean().item() for sae in (many.untrained, many.sae)]
    assert errors[1] < 0.6 * errors[0]
    counts = [trained.sae(x).latents.count_nonzero() / len(x) for trained in (few, many)]
    assert counts[0] < 0.7 * counts[1] and few.sae.theta.mean() > many.sae.theta.mean()


@pytest.mark.parametrize(
    "field, value",
    [("bandwidth", 0), ("threshold", -1.0), ("threshold", math.inf), ("target_l0", 0), ("kernel", "rectangel")],
)
def test_nonsense_is_refused_by_name_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}.*{value}"):
        make(**{field: value})
