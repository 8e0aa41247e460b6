"""The training loop on data small enough to see everything."""

from dataclasses import dataclass, replace

import pytest
import torch

from replication import train as training
from replication.activations import ActivationSource, Gaussian
from replication.optimise import Adam
from replication.train import Diverged, Run, estimate_seconds, train

RUN = Run(Gaussian(8, heldout_tokens=64), "topk", d_sae=16, sparsity=3, tokens=2048, batch=64, lr=3e-3, dead_after=512)


@dataclass(frozen=True)
class Broken(ActivationSource):
    """Finite batches until `good` of them are gone, NaN afterwards."""

    good: int

    @property
    def d_in(self):
        return 8

    def batches(self, batch, tokens, seed, device="cpu"):
        for number in range(tokens // batch):
            yield torch.full((batch, 8), float("nan")) if number >= self.good else torch.randn(batch, 8)

    def heldout(self, device="cpu"):
        return torch.randn(4, 8)


def weights(run: Run) -> torch.Tensor:
    return next(train([run])).sae.W_dec.detach()


@pytest.mark.parametrize("architecture, sparsity", [("topk", 3), ("relu", 0.1)])
def test_training_lowers_the_error_of_held_out_data(architecture, sparsity):
    trained = next(train([replace(RUN, architecture=architecture, sparsity=sparsity, tokens=16384)]))
    x = trained.run.source.heldout()
    before, after = ((x - sae(x).recon).square().mean() for sae in (trained.untrained, trained.sae))
    assert after < 0.9 * before
    torch.testing.assert_close(trained.sae.W_dec.norm(dim=-1), torch.ones(16))
    assert trained.log["curve_tokens"][-1] == 16384 and len(trained.log["curve_error"]) == len(
        trained.log["curve_tokens"]
    )


@pytest.mark.parametrize("architecture, sparsity", [("topk", 3), ("topafa", 0.1), ("jumprelu", 0.01)])
def test_adam_is_projection_then_torch_then_unit_norm(architecture, sparsity):
    """Three steps of our optimiser against the plain three, for trained and frozen parameters alike."""
    saes = [replace(RUN, architecture=architecture, sparsity=sparsity).build() for _ in range(2)]
    ours, plain = Adam(saes[0], 0.8, 0.9, 1e-8, shadow=False), torch.optim.Adam(saes[1].parameters(), 0.1, (0.8, 0.9))
    x = next(RUN.source.batches(64, 64, seed=0))
    for t in range(1, 4):
        for sae in saes:
            sae.objective(x, torch.empty(0, dtype=torch.int64)).loss.backward()
        ours.step(torch.tensor([0.1, 1 - 0.8**t, 1 - 0.9**t]))
        saes[1].before_step()
        plain.step()
        saes[1].after_step()
        saes[1].clamp_parameters()
        plain.zero_grad()
        assert all(weight.grad is None for weight in saes[0].parameters())
    for weight, theirs in zip(*(sae.parameters() for sae in saes), strict=True):
        torch.testing.assert_close(weight, theirs)


def test_the_untrained_control_is_what_training_started_from():
    run = replace(RUN, tokens=64)
    trained, longer = (next(train([one])) for one in (run, RUN))
    sample = run.source.sample(64, 64, run.data_seed)
    start = run.build()
    start.initialise(sample)
    assert torch.equal(trained.untrained.W_enc, start.W_enc) and torch.equal(trained.untrained.W_dec, start.W_dec)
    assert not torch.equal(longer.sae.W_dec, longer.untrained.W_dec)


def test_seeds_decide_and_company_does_not():
    assert torch.equal(weights(RUN), weights(RUN))
    assert not torch.equal(weights(RUN), weights(replace(RUN, seed=1)))
    assert not torch.equal(weights(RUN), weights(replace(RUN, data_seed=1)))
    other = replace(RUN, sparsity=2)
    together = {trained.run: trained.sae.W_dec for trained in training._train_together([other, RUN], "cpu", [])}
    assert torch.equal(together[RUN], weights(RUN)) and torch.equal(together[other], weights(other))


def test_the_moving_average_is_the_bias_corrected_mean_of_the_weights(monkeypatch):
    seen = []
    real = training._Trainee.step
    monkeypatch.setattr(
        training._Trainee, "step", lambda self, x: (real(self, x), seen.append(self.sae.b_enc.detach().clone()))
    )
    trained = next(train([replace(RUN, tokens=4 * 64, ema=0.5)]))
    powers = torch.tensor([0.5**4, 0.5**3, 0.5**2, 0.5]).unsqueeze(-1)
    torch.testing.assert_close(trained.sae.b_enc.detach(), (powers * torch.stack(seen)).sum(0) / (1 - 0.5**4))
    torch.testing.assert_close(trained.sae.W_dec.norm(dim=-1), torch.ones(16))


def test_dead_latents_are_counted_in_tokens():
    stuck = replace(RUN, sparsity=1, d_sae=64, lr=1e-9, dead_after=64, options={"aux_coefficient": 0.0})
    alive = replace(RUN, sparsity=16, d_sae=16, dead_after=10**9)
    log = next(train([stuck])).log
    assert log["dead"] > 0.1 and log["curve_dead"][-1] == pytest.approx(log["dead"], abs=1e-6)
    assert len(log["curve_dead"]) == len(log["curve_tokens"])
    assert next(train([alive])).log["dead"] == 0


@pytest.mark.parametrize("device, during", [("cuda:0", "high"), ("cpu", "highest")])
def test_the_precision_of_products_is_that_of_training_only_while_training(device, during):
    assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(RuntimeError), training._tensor_cores(device):
        assert torch.get_float32_matmul_precision() == during
        raise RuntimeError
    assert torch.get_float32_matmul_precision() == "highest"


def test_nan_activations_at_the_start_and_later_are_told_apart_from_divergence(monkeypatch):
    with pytest.raises(Diverged, match="activations.*not finite"):
        next(train([replace(RUN, source=Broken(good=0))]))
    monkeypatch.setattr(training, "SAMPLE_TOKENS", 128)
    with pytest.raises(Diverged, match=r"activations are not finite at step \d+; last good normalised error: \d"):
        next(train([replace(RUN, source=Broken(good=20))]))
    with pytest.raises(Diverged, match="topk.*loss is not finite at step"):
        next(train([replace(RUN, lr=1e30)]))


@pytest.mark.parametrize(
    "field, value",
    [
        ("architecture", "gated2"),
        ("d_sae", 0),
        ("batch", 0),
        ("tokens", 63),
        ("lr", 0.0),
        ("lr", float("inf")),
        ("sparsity", -1.0),
        ("ema", 1.0),
        ("beta1", 1.0),
        ("beta2", -0.5),
        ("adam_eps", 0.0),
        ("lr_warmup", -1),
        ("seed", -1),
        ("dead_after", 0),
        ("normalisation", "unit"),
    ],
)
def test_a_run_refuses_nonsense_by_name_and_value(field, value):
    with pytest.raises(ValueError, match=rf"{field}.*{value}"):
        replace(RUN, **{field: value})


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(ValueError, match="'aux'.*aux_coefficient.*k_aux"):
        replace(RUN, options={"aux": 0.0})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sparsity": 99.0}, "sparsity.*d_sae=16.*99"),
        ({"options": {"k_aux": 0}}, "k_aux.*0"),
        ({"options": {"generator": 3}}, "option 'generator'"),
        ({"options": {"tied_init": False}}, "option 'tied_init'"),
        ({"architecture": "topafa", "options": {"rule": "nearer"}}, "rule.*'nearer'"),
        ({"architecture": "batchtopk", "ema": 0.9}, "ema.*batchtopk.*0.9"),
        ({"architecture": "batchtopk", "sparsity": 0.01}, "batch \\* sparsity"),
    ],
)
def test_what_the_architecture_refuses_is_refused_before_training(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(RUN, **changes)


def test_equal_runs_are_one_run():
    assert repr(replace(RUN, options={"aux_coefficient": 0})) == repr(replace(RUN, options={"aux_coefficient": 0.0}))
    assert repr(replace(RUN, options={"unit_norm": 0})) == repr(replace(RUN, options={"unit_norm": False}))
    assert replace(RUN, sparsity=3) == RUN == replace(RUN, sparsity=3.0) and repr(replace(RUN, sparsity=3)) == repr(RUN)
    assert replace(RUN, options={"k_aux": 2, "aux_coefficient": 0.1}) == replace(
        RUN, options={"aux_coefficient": 0.1, "k_aux": 2}
    )


def test_an_estimate_grows_with_the_tokens():
    assert 0 < estimate_seconds(RUN) * 9.9 < estimate_seconds(replace(RUN, tokens=20480))


def test_the_penalty_grows_over_the_warm_up(monkeypatch):
    seen = []
    real = training.architecture("relu").objective

    def objective(self, x, dead, ramp=1.0, target=None):
        seen.append(ramp)
        return real(self, x, dead, ramp, target)

    monkeypatch.setattr(training.architecture("relu"), "objective", objective)
    list(train([replace(RUN, architecture="relu", sparsity=0.1, tokens=6 * 64, sparsity_warmup=4 * 64)]))
    assert seen == [0.25, 0.5, 0.75, 1, 1, 1]


def test_the_learning_rate_warms_up_along_a_half_cosine():
    assert training.lr_factor(torch.tensor([0, 2, 4, 9]), 4).tolist() == pytest.approx([0.1, 0.55, 1, 1])
    assert training.lr_factor(torch.tensor(1), 0) == 1
    run = replace(RUN, tokens=64, lr_warmup=10**9, options={"aux_coefficient": 0.0})
    moved = [(weights(one) - run.build().W_dec).norm() for one in (run, replace(run, lr_warmup=0))]
    assert moved[0].item() == pytest.approx(0.1 * moved[1].item(), rel=0.05)


def test_one_divergence_does_not_take_the_others_along():
    broken = replace(RUN, lr=1e30)
    done, failure = [], None
    try:
        for trained in train([broken, RUN]):
            done.append(trained.run)
    except Diverged as error:
        failure = str(error)
    assert done == [RUN] and "lr=1e+30" in failure


def test_marks_are_geometric_and_end_at_the_last_step():
    assert training._geometric_marks(1024)[-1] == 1024 and training._geometric_marks(1) == [1]
