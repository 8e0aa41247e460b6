"""Laws recovered from data whose law is known, and numbers a reader can check."""

import numpy as np
import pytest

from replication.scaling import (
    JOINT,
    POWER,
    aicc,
    bootstrap,
    envelope,
    fit,
    flops_per_token,
    interval,
    r_squared,
    tokens_to_converge,
)

PUBLISHED = {"alpha": -0.50, "beta_k": 0.26, "beta_n": -0.017, "gamma": -0.042, "zeta": -1.32, "eta": -0.085}


@pytest.mark.parametrize(
    ("k", "slope", "floor", "errors"),
    [  # errors at n = 2^11, 2^14, 2^17, 2^20, 2^24
        (32, -0.163, 0.199, [0.631, 0.507, 0.419, 0.356, 0.299]),
        (64, -0.192, 0.188, [0.602, 0.466, 0.374, 0.313, 0.261]),
        (128, -0.221, 0.177, [0.575, 0.428, 0.336, 0.277, 0.231]),
        (256, -0.250, 0.167, [0.548, 0.394, 0.302, 0.247, 0.207]),
        (512, -0.279, 0.157, [0.523, 0.362, 0.272, 0.221, 0.187]),
    ],
)
def test_the_published_joint_law(k, slope, floor, errors):
    assert JOINT.slope(PUBLISHED, "n", k=k) == pytest.approx(slope, abs=5e-4)
    assert JOINT.floor_error(PUBLISHED, k=k) == pytest.approx(floor, abs=5e-4)
    n = 2.0 ** np.array([11, 14, 17, 20, 24])
    np.testing.assert_allclose(JOINT.error(PUBLISHED, n=n, k=k), errors, atol=5.5e-4)


def test_a_law_by_hand():
    law = {"alpha": np.log(2), "beta": -0.5, "zeta": np.log(0.1)}
    np.testing.assert_allclose(POWER.error(law, x=np.array([4.0, 100.0])), [1.1, 0.3])
    assert POWER.slope(law, "x") == pytest.approx(-0.5)
    assert POWER.without_floor().error({"alpha": 0.0, "beta": 1.0}, x=3.0) == pytest.approx(3)
    assert JOINT.names == ["alpha", "beta_k", "beta_n", "gamma", "zeta", "eta"]


def grid(sizes=tuple(2**i for i in range(8, 15)), ks=(4, 8, 16, 32)):
    n, k = (axis.ravel().astype(float) for axis in np.meshgrid(sizes, ks))
    return {"n": n, "k": k}


def test_a_power_law_with_a_floor_is_recovered():
    law = {"alpha": 0.2, "beta": -0.3, "zeta": -2.0}
    x = 2.0 ** np.arange(6, 12)
    assert fit(POWER, POWER.error(law, x=x), {"x": x}).parameters == pytest.approx(law, abs=1e-4)
    plain = fit(POWER.without_floor(), 3 * x**-0.25, {"x": x})
    assert plain.parameters == pytest.approx({"alpha": np.log(3), "beta": -0.25}, abs=1e-6)


def test_the_joint_law_is_recovered_from_noise_free_errors():
    at = grid()
    found = fit(JOINT, JOINT.error(PUBLISHED, **at), at)
    assert found.parameters == pytest.approx(PUBLISHED, abs=1e-3)
    assert abs(found.residuals).max() < 1e-6


def test_huber_forgives_an_outlier():
    x = 2.0 ** np.arange(4, 12)
    error = x**-0.5
    error[3] *= 2
    assert fit(POWER.without_floor(), error, {"x": x}).parameters["beta"] == pytest.approx(-0.5, abs=2e-3)
    assert abs(np.polyfit(np.log(x), np.log(error), 1)[0] + 0.5) > 0.01


def test_aicc_by_hand():
    residuals = np.array([1.0, -1, 1, -1, 1, -1])  # mean square 1: 6 ln 1 + 2 * 2 + 2 * 2 * 3 / (6 - 2 - 1)
    assert aicc(residuals, 2) == pytest.approx(8)
    assert aicc(residuals * np.e, 2) == pytest.approx(8 + 12)
    with pytest.raises(ValueError, match="more than 6 points, got 6"):
        aicc(residuals, 5)


def test_aicc_prefers_a_floor_only_where_there_is_one():
    generator, x = np.random.default_rng(0), np.repeat(2.0 ** np.arange(6, 14), 3)

    def gain(error):
        noisy = error * np.exp(generator.normal(0, 0.003, len(x)))
        return fit(POWER.without_floor(), noisy, {"x": x}).aicc - fit(POWER, noisy, {"x": x}).aicc

    assert sum(gain(x**-0.3) > 2 for _ in range(6)) <= 1  # by chance, in about one of 40
    assert min(gain(x**-0.3 + 0.1) for _ in range(2)) > 50


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator, x = np.random.default_rng(1), np.repeat(2.0 ** np.arange(6, 11), 3)
    covered = 0
    for trial in range(40):
        noisy = fit(POWER.without_floor(), x**-0.3 * np.exp(generator.normal(0, 0.02, len(x))), {"x": x})
        low, high = interval([one.parameters["beta"] for one in bootstrap(noisy, seed=trial, resamples=40)])
        covered += low <= -0.3 <= high
    assert 32 <= covered <= 40


def test_a_bootstrap_is_reproducible_and_surrounds_the_fit():
    generator, at = np.random.default_rng(0), grid(ks=(4, 8, 16))
    whole = fit(JOINT, JOINT.error(PUBLISHED, **at) * np.exp(generator.normal(0, 0.002, len(at["n"]))), at)
    first, second = (bootstrap(whole, seed=3, resamples=20) for _ in range(2))
    assert [one.parameters for one in first] == [one.parameters for one in second]
    low, high = interval([float(JOINT.slope(one.parameters, "n", k=8)) for one in first])
    assert low < JOINT.slope(whole.parameters, "n", k=8) < high


@pytest.mark.parametrize(
    ("error", "at", "message"),
    [
        ([0.5, 0.0, 0.3], {"x": [1, 2, 3]}, "error must be positive and finite, got 0.0"),
        ([0.5, 0.4, 0.3], {"x": [1, np.nan, 3]}, "x must be positive and finite, got nan"),
        ([0.5, 0.4, 0.3], {"x": [1, 2]}, "x has 2 values for 3 errors"),
        ([0.5, 0.4, 0.3], {"x": [2, 2, 4]}, "3 points at 2 places do not determine alpha, beta, zeta"),
    ],
)
def test_bad_points_are_refused_by_name(error, at, message):
    with pytest.raises(ValueError, match=message):
        fit(POWER, error, at)


def test_flops_by_hand():
    assert flops_per_token(100, 10, 3) == 2 * 100 * 10 + 10 * 3 * 10
    assert flops_per_token(100, 10, 3, k_aux=5) == 2300 + 6 * 5 * 10
    dense = 6 * 2 * 10**6 * 10  # six dense products: at k << n sparse kernels leave one of them
    assert dense / flops_per_token(10**6, 10, 3) == pytest.approx(6, rel=1e-4)


def test_envelope_by_hand():
    steep, flat = ([1, 100], [1.0, 0.01]), ([1, 10_000], [0.1, 0.1])
    error, winner = envelope([steep, flat], np.array([0.5, 1, 10, 100, 1000]))
    np.testing.assert_allclose(error, [np.nan, 0.1, 0.1, 0.01, 0.1])
    assert winner.tolist()[0] == -1 and winner.tolist()[3:] == [0, 1]


def test_tokens_to_converge_by_hand():
    assert tokens_to_converge([1, 10, 100], [1.01**3, 1.01**2, 1.0]) == pytest.approx(10**1.5)  # half way in logs
    assert tokens_to_converge([1, 10, 100], [1.0, 1.0, 1.0]) == 1


def test_r_squared_by_hand():
    assert r_squared(np.array([0.0, 1, 2]), np.array([1.0, 3, 5])) == pytest.approx(1)
    assert r_squared(np.array([0.0, 1, 2]), np.array([0.0, 1, 0])) == pytest.approx(0)
