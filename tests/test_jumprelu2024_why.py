"""Why JumpReLU trains: gradients that can be worked out by hand, toy data of known scale, verdicts on known tables."""

import math
from dataclasses import asdict
from itertools import product

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch

from replication import figures
from replication.claims import NoEvidence
from replication.kernels import KERNELS
from replication.papers.jumprelu2024 import why
from replication.papers.jumprelu2024.why import Estimate, Picture, Toy
from replication.results import PRESETS
from replication.sae.jumprelu import JumpReLU
from replication.train import Run


class TestToy:
    def test_has_unit_mean_square_norm_and_as_many_active_atoms_as_it_says(self):
        x, codes = Toy(seed=1, width=16, n_atoms=32, active=2.0).draw(2**16, torch.Generator().manual_seed(0))
        assert x.square().sum(-1).mean().item() == pytest.approx(1, abs=0.01)
        assert (codes > 0).sum(-1).float().mean().item() == pytest.approx(2, abs=0.02)

    def test_scale_of_one_atom_by_hand(self):
        """One atom in one dimension, active with p = 1/2, no noise: E x^2 = p E[s^2] = (1/2) (13/12)."""
        toy = Toy(width=1, n_atoms=1, active=0.5, noise=0.0)
        assert toy.scale == pytest.approx(math.sqrt(13 / 24))

    def test_streams_are_seeded_and_differ_from_what_is_held_out(self):
        toy = Toy(width=4, n_atoms=8, active=1.0, heldout_tokens=16)
        first, again, other = (torch.cat(list(toy.batches(8, 16, seed))) for seed in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert not torch.equal(first, toy.heldout()) and torch.equal(toy.heldout(), toy.heldout())

    @pytest.mark.parametrize(
        "field, value", [("width", 0), ("n_atoms", 0), ("active", 0.0), ("active", 200.0), ("noise", -1.0)]
    )
    def test_refuses_nonsense(self, field, value):
        with pytest.raises(ValueError, match=field):
            Toy(**{field: value})


@pytest.mark.parametrize(
    "kernel, expected", [("rectangle", 1 / 12), ("triangle", 1 / 6), ("gaussian", 1), ("epanechnikov", 1 / 5)]
)
def test_bandwidths_are_matched_in_variance(kernel, expected):
    assert why.variance(kernel) == pytest.approx(expected, rel=1e-3)
    matched = why.matched_bandwidth(kernel, 0.03)
    assert matched**2 * expected == pytest.approx(0.03**2 / 12, rel=2e-3)


def test_the_drawn_pseudo_derivatives_are_the_papers():
    table = why.estimators(theta=0.5, bandwidth=0.2)
    inside = table[(table.kernel == "rectangle") & (table.z - 0.5).abs().lt(0.09)]
    outside = table[(table.kernel == "rectangle") & (table.z - 0.5).abs().gt(0.11)]
    assert inside[inside.function == "JumpReLU"].derivative.unique() == pytest.approx([-0.5 / 0.2])
    assert inside[inside.function == "step"].derivative.unique() == pytest.approx([-1 / 0.2])
    assert (outside.derivative == 0).all()
    for _, cell in table[table.function == "step"].groupby("kernel"):
        assert np.trapezoid(-cell.derivative, cell.z) == pytest.approx(1, abs=0.02)


def one_latent(theta: float = 0.5, penalty: float = 0.2, bandwidth: float = 0.2) -> JumpReLU:
    """pre = x, recon = pre where it is above theta: the loss of a sample is x^2 below theta, lambda above."""
    sae = JumpReLU(1, 1, penalty, bandwidth=bandwidth, threshold=theta)
    with torch.no_grad():
        sae.W_dec.fill_(1)
        sae.W_enc.fill_(1)
    return sae


def test_losses_by_hand():
    x = torch.tensor([[0.4], [0.6]])
    assert why.losses(one_latent(), x, torch.tensor([0.5])).tolist() == pytest.approx([0.16, 0.2])


def test_the_finite_difference_is_theta_squared_minus_lambda():
    """x ~ U(0, 1): L = theta^3/3 + lambda (1 - theta), so that dL/dtheta = theta^2 - lambda = 0.05."""
    x = (torch.arange(100_000).float() + 0.5).div(100_000).unsqueeze(-1)
    found = why.finite_difference(one_latent(), x, h=0.01)
    assert found.tolist() == pytest.approx([0.05], abs=2e-4)


def test_the_pseudo_derivative_is_half_right_on_each_side_and_right_in_the_mean():
    """Off, I = 2 theta x; on, I = 0: the mean over the window is theta^2. After the jump, lambda counts half."""
    x = (torch.arange(100_000).float() + 0.5).div(100_000).unsqueeze(-1)
    sae = one_latent()
    # below theta: (1/e) times the integral of 2 theta x over (0.4, 0.5), which is 5 x 0.045
    assert why.ste_gradient(sae, x).tolist() == pytest.approx([5 * 0.045 - 0.2], abs=1e-3)
    assert why.ste_gradient(sae, x, after_jump=True).tolist() == pytest.approx([5 * 0.045 - 0.1], abs=1e-3)
    narrow = one_latent(bandwidth=0.01)
    assert why.ste_gradient(narrow, x).tolist() == pytest.approx([0.05], abs=2e-3)


def test_screening_by_hand():
    """An inactive sample at 0.3, active ones of code 1 at 0.8 and 1.2, theta = 0.5."""
    pre, codes = torch.tensor([0.3, -1.0, 0.8, 1.2]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    found = why.screening(pre, codes, 0.5)
    assert found["ReLU"] == pytest.approx((0.5, 1.0, 0.17 / 2))
    assert found["ReLU, bias lowered by theta"] == pytest.approx((0, 0.5, (0.49 + 0.09) / 2))
    assert found["JumpReLU"] == pytest.approx((0, 1.0, 0.08 / 2))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Estimate(0.0, False, 8, 0), "bandwidth must be positive"),
        (lambda: Estimate(0.1, False, 8, 0, h=0.0), "h must be positive"),
        (lambda: Estimate(0.1, False, 3, 0), "samples must be"),
        (lambda: Picture(10, 0), "samples must be at least 100, got 10"),
    ],
)
def test_a_run_refuses_nonsense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "study, preset",
    [(study, "smoke") for study in why.STUDIES] + [(why.BANDWIDTH, preset) for preset in PRESETS],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_preset_has_runs_of_several_seeds(study, preset):
    runs = study.runs(preset)
    assert len({run.seed for run in runs}) >= 2
    if isinstance(runs[0], Run):
        plan = why.PLANS[preset]
        assert {run.tokens for run in runs} <= {plan.tokens, plan.tokens // 2}
        assert all(run.source == Toy(run.seed, **plan.source) for run in runs)


def test_kernels_have_the_reference_windows_variance():
    for run in why.KERNEL_SHAPES.runs("cpu"):
        options = dict(run.options)
        kernel = options.get("kernel", "rectangle")
        assert options["bandwidth"] ** 2 * why.variance(kernel) == pytest.approx(0.03**2 / 12, rel=2e-3)
    assert {dict(run.options).get("kernel", "rectangle") for run in why.KERNEL_SHAPES.runs("cpu")} == set(KERNELS)


def estimates(right=(0.08, 0.04, 0.02, 0.015, 0.01), wrong=0.16, samples=2**20, theta=0.25, inside=4000):
    return pd.DataFrame(
        [
            {
                "bandwidth": bandwidth,
                "after_jump": after,
                "samples": samples,
                "seed": seed,
                "relative_error": (wrong if after else error) * (1 + 0.01 * seed),
                "noise": 0.01,
                "in_window": int(inside * bandwidth / 0.02),
                "theta_min": theta,
            }
            for seed, after, (bandwidth, error) in product(
                range(3), (False, True), zip(why.BANDWIDTHS, right, strict=True)
            )
        ]
    )


class TestJ1:
    def test_is_replicated(self):
        found = why.estimate_is_right(estimates())
        assert found.verdict == "replicated" and found.ours == pytest.approx(0.0101)

    def test_takes_the_smallest_bandwidth_with_enough_samples(self):
        found = why.estimate_is_right(estimates(inside=500))
        assert found.ours == pytest.approx(0.01515)

    def test_other_verdicts(self):
        assert why.estimate_is_right(estimates(right=(0.3, 0.2, 0.1, 0.1, 0.1))).verdict == "partly"  # falls, too large
        assert why.estimate_is_right(estimates(right=(0.01, 0.01, 0.02, 0.03, 0.04))).verdict == "partly"  # rises
        assert why.estimate_is_right(estimates(right=(0.1, 0.2, 0.3, 0.3, 0.3))).verdict == "not replicated"

    def test_is_void_where_the_control_passes_or_a_window_reaches_zero(self):
        assert "cannot tell" in why.estimate_is_right(estimates(wrong=0.03)).summary
        assert why.estimate_is_right(estimates(theta=0.1)).verdict == "void"
        assert why.estimate_is_right(estimates(inside=10)).verdict == "void"
        with pytest.raises(NoEvidence, match="a million"):
            why.estimate_is_right(estimates(samples=1000))


def runs(
    options: dict, l0s: dict[float, float], ratio: float = 1.0, half_ratio: float | None = None, noise=0.005, **columns
) -> pd.DataFrame:
    """NMSE = ratio / L0 at each lambda -> L0, with all of the tokens and with half; seeds differ by half a percent."""
    found = []
    for seed, half in product(range(3), (False, True)):
        factor = ratio if not half or half_ratio is None else half_ratio
        for penalty, l0 in l0s.items():
            row = {"options": repr(tuple(options.items())), "sparsity": penalty, "seed": seed, "l0": l0, "dead": 0.2}
            row |= {"tokens": 1000 // (1 + half), "nmse": factor * (1 + noise * (seed - 1)) / l0, "theta_50": 0.1}
            found.append(row | {"batch": 10, "lr": 0.01} | columns)
    return pd.DataFrame(found)


BASE = {"bandwidth": 0.03, "threshold": 0.02}
SWEEP = {1e-3: 64, 1e-2: 16, 1e-1: 4}
REFERENCE = runs(BASE, SWEEP, noise=0)


def joined(*tables: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)


def test_options_become_columns():
    rows = why.with_settings(joined(REFERENCE, runs(BASE | {"kernel": "gaussian", "ste_into_pre": True}, SWEEP)))
    assert set(rows.kernel) == {"rectangle", "gaussian"} and rows.ste_into_pre.sum() == 18
    assert rows.target_l0.isna().all() and rows.half.sum() == 18


def test_g_is_a_log_ratio_at_equal_l0_and_not_extrapolated():
    tested = why.with_settings(
        joined(REFERENCE, runs(BASE | {"kernel": "gaussian"}, {1e-2: 10, 1e-3: 100}, 2.0, noise=0))
    )
    found = why.gaps(tested[tested.kernel == "gaussian"], tested[tested.kernel == "rectangle"])
    assert found[found.l0 == 10].g.tolist() == pytest.approx([math.log(2)] * 6)
    assert found[found.l0 == 100].g.isna().all()


def kernels(**ratios: float) -> pd.DataFrame:
    others = {"triangle": 1.0, "gaussian": 1.0, "epanechnikov": 1.0} | ratios
    return joined(REFERENCE, *(runs(BASE | {"kernel": k}, {1e-2: 15, 3e-2: 8}, r) for k, r in others.items()))


def test_j10_wants_every_kernel_close():
    found = why.shape_is_immaterial(kernels(gaussian=1.02))
    assert found.verdict == "replicated" and found.ours == pytest.approx(math.log(1.02), abs=1e-4)
    assert "gaussian" in found.summary
    assert why.shape_is_immaterial(kernels(gaussian=1.2)).verdict == "partly"
    assert why.shape_is_immaterial(kernels(gaussian=1.2, triangle=0.8, epanechnikov=1.3)).verdict == "not replicated"
    with pytest.raises(NoEvidence, match="one kernel"):
        why.shape_is_immaterial(REFERENCE)


def test_comparisons_are_void_where_training_was_too_short_or_nothing_is_matched():
    moving = joined(REFERENCE, runs(BASE | {"kernel": "gaussian"}, {1e-2: 15}, 1.0, half_ratio=1.2))
    assert "under-trained" in why.shape_is_immaterial(moving).summary
    far = joined(REFERENCE, runs(BASE | {"kernel": "gaussian"}, {1e-2: 500}))
    assert "0 of 6 runs" in why.shape_is_immaterial(far).summary


def with_target(off: float, ratio: float = 1.0) -> pd.DataFrame:
    aimed = [runs(BASE | {"target_l0": float(t)}, {1.0: t * (1 + off)}, ratio) for t in (8, 16, 32)]
    return joined(REFERENCE, *aimed)


def test_j12_wants_the_target_met_and_the_error_equal():
    found = why.target_is_met(with_target(0.05))
    assert found.verdict == "replicated" and "8.4 for 8" in found.summary
    assert why.target_is_met(with_target(0.2)).verdict == "partly"
    assert why.target_is_met(with_target(0.05, ratio=1.2)).verdict == "partly"
    assert why.target_is_met(with_target(0.2, ratio=1.2)).verdict == "not replicated"
    with pytest.raises(NoEvidence):
        why.target_is_met(REFERENCE)


def with_ste(ratio: float, dead: float) -> pd.DataFrame:
    narrow = BASE | {"bandwidth": why.PAPER_BANDWIDTH}
    pairs = [
        (runs(one, SWEEP, noise=0), runs(one | {"ste_into_pre": True}, {1e-2: 12}, ratio, dead=dead))
        for one in (BASE, narrow)
    ]
    return joined(*(table for pair in pairs for table in pair))


def test_j9_is_void_where_more_training_changes_the_gap():
    narrow = BASE | {"bandwidth": why.PAPER_BANDWIDTH}

    def trained(ratio, half_ratio):
        into = runs(narrow | {"ste_into_pre": True}, {1e-2: 12}, ratio, half_ratio=half_ratio, dead=0.4)
        return why.into_pre_hurts(joined(runs(narrow, SWEEP, noise=0), into))

    assert trained(1.2, 1.4).verdict == trained(1.4, 1.2).verdict == "void"
    assert trained(1.4, 1.38).verdict == "replicated"


def test_j9_wants_more_dead_latents_and_a_larger_error():
    found = why.into_pre_hurts(with_ste(1.3, 0.4))
    assert found.verdict == "replicated" and found.ours == pytest.approx(math.log(1.3), abs=1e-4)
    assert "by +20.0 percentage points at bandwidth 0.001" in found.summary
    assert why.into_pre_hurts(with_ste(1.3, 0.1)).verdict == "partly"
    assert why.into_pre_hurts(with_ste(0.7, 0.1)).verdict == "not replicated"


def widths(exponent: float, worse: float, stuck: float, base: float = 0.2) -> pd.DataFrame:
    """At lambda = 0.01 L0 is 16 at the reference and goes as bandwidth^exponent; `stuck`, `base`: median thetas."""
    table = [runs(BASE, SWEEP, noise=0, theta_50=base)]
    for bandwidth, ratio, theta in ((1e-4, 1.0, stuck), (1e-1, worse, base)):
        l0 = {1e-2: 16 * (bandwidth / 0.03) ** exponent}
        table.append(runs(BASE | {"bandwidth": bandwidth}, l0, ratio, theta_50=theta))
    rows = joined(*table)
    return rows[rows.tokens == 1000].assign(l0=lambda one: one.l0 * (1 + 0.001 * one.seed * (one.nmse > 0)))


def test_j11_has_three_parts():
    found = why.bandwidth_is_a_tradeoff(widths(-0.1, 1.2, 0.03))
    assert found.verdict == "replicated" and found.ours == pytest.approx(-0.1, abs=0.01)
    assert why.bandwidth_is_a_tradeoff(widths(-0.1, 1.2, 0.08)).verdict == "partly"
    assert why.bandwidth_is_a_tradeoff(widths(-0.1, 0.8, 0.03)).verdict == "partly"
    assert why.bandwidth_is_a_tradeoff(widths(0.1, 0.8, 0.08)).verdict == "not replicated"
    assert "under-trained" in why.bandwidth_is_a_tradeoff(widths(-0.1, 1.2, 0.03, base=0.03)).summary
    with pytest.raises(NoEvidence, match="both sides"):
        why.bandwidth_is_a_tradeoff(REFERENCE)


def test_the_reach_of_a_threshold_by_hand():
    """100 steps at 0.01: a raw threshold gains 1, a logarithmic one a factor e."""
    rows = why.reach(joined(REFERENCE, runs(BASE | {"log_threshold": True}, SWEEP)))
    full = rows[~rows.half]
    assert full[~full.log_threshold].limit.unique() == pytest.approx([1.02])
    assert full[full.log_threshold].limit.unique() == pytest.approx([0.02 * math.e])


@pytest.fixture(scope="module")
def smoke() -> dict[str, pd.DataFrame]:
    """Rows of every study; trainings shared by studies are made once."""
    known: dict = {}
    tables = {}
    for study in why.STUDIES:
        todo = [run for run in study.runs("smoke") if run not in known]
        known |= dict(study.measure(todo))
        plain = [
            asdict(run) | ({"options": repr(run.options)} if isinstance(run, Run) else {}) | known[run]
            for run in study.runs("smoke")
        ]
        tables[study.name] = pd.DataFrame(plain)
    return tables


@pytest.mark.parametrize("name", why.FIGURES)
def test_figures_draw_from_what_is_measured(name, smoke, tmp_path):
    study, function, arguments = why.FIGURES[name]
    figure = figures.named(function)(*arguments(smoke[study.name]))
    figure.savefig(tmp_path / "figure.png")
    for axes in figure.axes:
        assert axes.get_xlabel() and (axes.lines or axes.patches)


def test_screening_has_a_line_per_seed_and_rule(smoke):
    rows = smoke["picture"]
    found = why.screened(rows).set_index(["rule", "seed"]).false
    assert len(found) == 3 * len(rows) and found["JumpReLU"].tolist() == rows.false_jump.tolist()
    assert (found["JumpReLU"] == found["ReLU, bias lowered by theta"]).all()


def test_rows_are_finite_and_have_their_controls(smoke):
    rows = smoke["reach"]
    assert np.isfinite(rows[["nmse", "nmse_untrained", "nmse_pca", "theta_max", "dictionary_cosine"]]).all(axis=None)
    assert (rows.theta_10 <= rows.theta_50).all() and (rows.theta_50 <= rows.theta_max).all()
    gradients = smoke["gradients"]
    smallest = gradients[gradients.bandwidth == 0.1].groupby("after_jump").relative_error.mean()
    assert smallest[False] < smallest[True]
