"""Gated: forward, loss and gradients by hand, and what it shares with JumpReLU."""

import pytest
import test_sae
import torch

from replication import kernels
from replication import sae as library
from replication.activations import Gaussian
from replication.sae.gated import Gated
from replication.sae.jumprelu import JumpReLU
from replication.train import Run, train

D_IN, D_SAE = test_sae.D_IN, test_sae.D_SAE
NONE_DEAD = test_sae.NONE_DEAD


def random_sae(sparsity: float = 0.1, **options) -> Gated:
    """Every parameter away from its special start."""
    generator = torch.Generator().manual_seed(0)
    sae = Gated(D_IN, D_SAE, sparsity, generator=generator, **options)
    with torch.no_grad():
        for parameter in (sae.b_enc, sae.b_dec, sae.r_mag, sae.b_mag):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return sae


def by_hand(**options) -> Gated:
    """One input, two latents: gates x - 1 and x + 1, magnitudes 2 x + 0.5 and x - 2."""
    sae = Gated(1, 2, 0.25, **options)
    with torch.no_grad():
        sae.W_enc.fill_(1)
        sae.W_dec.copy_(torch.tensor([[1.0], [-1.0]]))
        sae.b_enc.copy_(torch.tensor([-1.0, 1.0]))
        sae.r_mag.copy_(torch.tensor([2.0, 1.0]).log())
        sae.b_mag.copy_(torch.tensor([0.5, -2.0]))
    return sae


def test_latents_by_hand():
    x = torch.tensor([[3.0], [0.5], [-3.0]])
    torch.testing.assert_close(by_hand()(x).latents, torch.tensor([[6.5, 1.0], [0, 0], [0, 0]]))


@pytest.mark.parametrize("ri_l1", [False, True])
def test_loss_by_hand(ri_l1):
    sae = by_hand(ri_l1=ri_l1)
    if ri_l1:
        with torch.no_grad():
            sae.W_dec[1] = -0.5
    factor = 0.5 if ri_l1 else 1.0
    objective = sae.objective(torch.tensor([[3.0]]), torch.empty(0, dtype=torch.int64), ramp=0.5)
    error = (3 - (6.5 - factor * 1)) ** 2
    auxiliary = (3 - (2 - factor * 4)) ** 2  # gates 2 and 4
    assert objective.error.item() == pytest.approx(error)
    assert objective.loss.item() == pytest.approx(error + 0.5 * 0.25 * (2 + factor * 4) + auxiliary)
    assert objective.fired.tolist() == [True, True]


def test_fired_needs_gate_and_magnitude():
    objective = by_hand().objective(torch.tensor([[1.5]]), torch.empty(0, dtype=torch.int64))
    assert objective.fired.tolist() == [True, False]  # the second gate is open, its magnitude is negative


@pytest.mark.parametrize("turn", [2**17, 3 * D_SAE])
@pytest.mark.parametrize("ri_l1", [False, True])
def test_gradients_equal_those_of_the_dense_equation_with_a_frozen_decoder(ri_l1, turn, monkeypatch):
    monkeypatch.setattr(kernels, "TURN_ELEMENTS", turn)
    sae, x = random_sae(0.3, ri_l1=ri_l1).double(), test_sae.batch().double()
    frozen_rows, frozen_bias = sae.W_dec.detach().clone(), sae.b_dec.detach().clone()
    product = (x - sae.b_dec) @ sae.W_enc
    gate = (product + sae.b_enc).relu()
    magnitude = (torch.exp(sae.r_mag) * product + sae.b_mag).relu()
    error = (x - (magnitude * (gate > 0)) @ sae.W_dec - sae.b_dec).square().sum(-1).mean()
    norms = frozen_rows.square().sum(-1).sqrt() if ri_l1 else torch.ones(D_SAE).double()
    auxiliary = (x - gate @ frozen_rows - frozen_bias).square().sum(-1).mean()
    dense = error + 0.3 * (gate * norms).sum(-1).mean() + auxiliary
    loss = sae.objective(x, NONE_DEAD).loss
    torch.testing.assert_close(loss, dense)
    parameters = list(sae.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(value, parameters) for value in (loss, dense)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("ri_l1", [False, True])
def test_the_decoder_learns_from_the_reconstruction_only_and_the_gate_from_the_rest_only(ri_l1):
    sae, x = random_sae(ri_l1=ri_l1), test_sae.batch()
    sae.objective(x, NONE_DEAD).loss.backward()
    error = (x - sae(x).recon).square().sum(-1).mean()
    decoder, b_enc = torch.autograd.grad(error, [sae.W_dec, sae.b_enc])
    torch.testing.assert_close(sae.W_dec.grad, decoder)
    assert b_enc.abs().max() < 1e-6 < 1e-2 < sae.b_enc.grad.abs().max()


def test_it_is_a_jumprelu_in_the_forward_direction():
    """magnitude > exp(r_mag) (-b_enc) + b_mag exactly where gate > 0: that is theta, or 0 where it is negative."""
    gated, x = random_sae(), test_sae.batch(n=500)
    jump = JumpReLU(D_IN, D_SAE, 0.1)
    with torch.no_grad():
        jump.W_enc.copy_(gated.W_enc * gated.r_mag.exp())
        jump.b_enc.copy_(gated.b_mag)
        jump.theta_raw.copy_((gated.b_mag - gated.r_mag.exp() * gated.b_enc).clamp(min=0))
        jump.W_dec.copy_(gated.W_dec)
        jump.b_dec.copy_(gated.b_dec)
    assert 0 < (jump.theta == 0).sum() < D_SAE
    torch.testing.assert_close(jump(x), gated(x))
    assert torch.equal(jump(x).latents > 0, gated(x).latents > 0)


def test_rescaling_a_latent_changes_nothing_with_ri_l1():
    sae, x = random_sae(ri_l1=True), test_sae.batch()
    before, recon = sae.objective(x, NONE_DEAD), sae(x).recon
    with torch.no_grad():
        sae.W_dec[3] *= 5
        sae.W_enc[:, 3] /= 5
        sae.b_enc[3] /= 5
        sae.b_mag[3] /= 5
    torch.testing.assert_close(sae(x).recon, recon)
    torch.testing.assert_close(sae.objective(x, NONE_DEAD).loss, before.loss)
    torch.testing.assert_close(sae.objective(x, NONE_DEAD).error, before.error)
    sae.after_step()
    assert sae.W_dec[3].norm() > 4.9


def test_ri_l1_is_saved_with_its_free_norms(tmp_path):
    sae, x = random_sae(ri_l1=True), test_sae.batch()
    sae.save(tmp_path / "sae.safetensors")
    again = library.load(tmp_path / "sae.safetensors")
    assert again.ri_l1 and not again.unit_norm and random_sae().unit_norm
    torch.testing.assert_close(again(x), sae(x), rtol=0, atol=0)


def test_half_precision_products_leave_sums_in_full():
    sae, x = random_sae(), test_sae.batch()
    with torch.autocast("cpu", torch.bfloat16):
        objective = sae.objective(x, NONE_DEAD)
    objective.loss.backward()
    assert objective.loss.dtype == torch.float32 == sae.b_mag.grad.dtype
    half = [parameter.grad.clone() for parameter in sae.parameters()]
    full = sae.objective(x, NONE_DEAD).loss
    torch.testing.assert_close(objective.loss, full, rtol=0.02, atol=0.02)
    for ours, theirs in zip(half, torch.autograd.grad(full, list(sae.parameters())), strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize("ri_l1", [False, True])
def test_training_lowers_the_error_and_free_norms_do_not_vanish(ri_l1):
    source = Gaussian(D_IN, 512)
    run = Run(source, "gated", D_SAE, 0.5, 25600, 64, 3e-3, dead_after=10**6, options={"ri_l1": ri_l1})
    trained, x = next(train([run])), source.heldout()
    before, after = ((x - sae(x).recon).square().sum(-1).mean() for sae in (trained.untrained, trained.sae))
    assert after < 0.2 * before and trained.sae.W_dec.norm(dim=-1).mean() > 0.7
