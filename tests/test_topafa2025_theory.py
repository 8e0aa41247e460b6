"""The page on the norm bound: directions whose cosines are known, and rules on tables of known answer."""

import math
from dataclasses import asdict, replace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch

from replication import figures
from replication.claims import NoEvidence
from replication.evaluate.norms import cosines
from replication.papers.topafa2025 import theory
from replication.papers.topafa2025.theory import ARRANGEMENTS, Directions

RUN = Directions(16, 8, "random", "uniform", (2, 4), 64, 0)


def table(study, preset="smoke") -> pd.DataFrame:
    return pd.DataFrame([asdict(run) | measured for run, measured in study.measure(study.runs(preset))])


@pytest.fixture(scope="module")
def smoke() -> dict[str, pd.DataFrame]:
    return {study.name: table(study) for study in theory.STUDIES}


def directions(arrangement: str, h: int, d: int):
    return ARRANGEMENTS[arrangement][0](h, d, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("arrangement", "h", "lowest", "highest"),
    [("simplex", 9, -1 / 8, -1 / 8), ("aligned", 6, 0.1, 0.1), ("antipodal", 16, -1, 0)],
)
def test_cosines_of_the_known_arrangements(arrangement, h, lowest, highest):
    """In 8 dimensions; aligned: eps (h - 1) = 0.5, so eps = 0.1 for 6 directions."""
    atoms = directions(arrangement, h, 8)
    assert atoms.shape == (h, 8)
    torch.testing.assert_close(torch.linalg.norm(atoms, dim=-1), torch.ones(h, dtype=torch.float64))
    found = cosines(atoms)
    assert (found.lowest, found.highest) == pytest.approx((lowest, highest), abs=1e-9)


def test_repulsion_lowers_the_largest_cosine_towards_the_least():
    random, apart = cosines(directions("random", 64, 32)), cosines(directions("repelled", 64, 32))
    welch = math.sqrt(32 / (32 * 63))
    assert welch < apart.largest < 1.25 * welch < 0.5 * random.largest


def test_laws():
    u = torch.tensor([0.0, 0.25, 0.75])
    assert {name: law(u).tolist() for name, law in theory.LAWS.items()} == {
        "uniform": [0.5, 0.75, 1.25],
        "signed": [-0.5, -1.0, 1.0],
        "equal": [1.0, 1.0, 1.0],
        "exponential": pytest.approx([0.0, math.log(4 / 3), math.log(4)]),
    }


def test_codes_have_k_different_active_directions():
    active, values = theory.draw_codes(10, 4, "uniform", 50, torch.Generator().manual_seed(0))
    assert active.shape == values.shape == (50, 4)
    assert all(len(set(row)) == 4 for row in active.tolist())
    assert values.min() >= 0.5 and values.max() <= 1.5


def measured(run: Directions) -> dict:
    [(_, found)] = theory.measure([run])
    return found


def test_the_simplex_reaches_the_lower_bound():
    """Nine directions at -1/8, k of them equal: z^2 / f^2 = 1 - (k - 1) / 8."""
    found = measured(Directions(9, 8, "simplex", "equal", (3, 9), 32, 0))
    assert found["ratio_50"] == pytest.approx([0.75, 0], abs=1e-9)
    assert found["reached_k"] == found["reached_l1"] == pytest.approx([1, 1])
    assert found["reached_h"] == pytest.approx([0.25, 1])
    assert found["violations_h"] == found["violations_k"] == found["violations_l1"] == [0, 0]
    assert found["eps_lbo"] == pytest.approx([0.25 / 0.75 * 0.75 / 8, 1 / 8])
    assert found["finite_k"] == 8


def test_aligned_directions_reach_the_upper_bound():
    """Six directions at 0.1, all equal: z^2 / f^2 = 1 + 0.1 * 5."""
    found = measured(Directions(6, 8, "aligned", "equal", (6,), 32, 0))
    assert found["ratio_50"] == pytest.approx([1.5])
    assert found["reached_h"] == pytest.approx([1])
    assert found["finite_k"] == 6


def test_the_signed_maximum_is_violated_by_antipodal_pairs_alone():
    """All 16 directions are active: z has 8 coordinates f_i - f_j, and the cross terms are -2 f_i f_j."""
    found = measured(Directions(16, 8, "antipodal", "uniform", (16,), 64, 0))
    assert found["violations_signed"] == [64]
    assert found["violations_k"] == [0]
    assert (found["eps"], found["eps_signed"]) == pytest.approx((1, 0), abs=1e-9)
    assert found["ratio_max"][0] < 0.5


def test_a_bound_that_is_too_small_is_noticed(monkeypatch):
    """eps underestimated by one percent: codes on the bound violate it."""
    true = theory.cosines
    monkeypatch.setattr(theory, "cosines", lambda atoms: true(atoms)._replace(lowest=0.99 * true(atoms).lowest))
    found = measured(Directions(9, 8, "simplex", "equal", (3,), 32, 0))
    assert found["violations_k"] == [32]


def test_where_the_upper_bound_ends():
    """eps (k - 1) < 1 for eps = 0.3: k = 4 gives 0.9, k = 5 1.2. Exactly 1 at eps = 0.25, k = 5 is no longer below."""
    assert theory.finite_up_to(0.3, 100) == theory.finite_up_to(0.25, 100) == 4
    assert theory.finite_up_to(0.3, 3) == 3
    generator = torch.Generator().manual_seed(0)
    assert theory.half_finite_up_to(0.3, "equal", 100, generator) == 4
    assert theory.half_finite_up_to(0.1, "exponential", 100, generator) > 11


def test_random_directions_spread_as_predicted():
    """d = 64, k = 16 equal entries: sum p^4 = 1/16, so the sd is sqrt(2 / 64 * 15 / 16)."""
    found = measured(Directions(512, 64, "random", "equal", (16,), 4096, 0))
    assert found["fourth"] == pytest.approx([1 / 16])
    assert found["sd"][0] == pytest.approx(math.sqrt(2 / 64 * 15 / 16), rel=0.05)
    assert found["ratio_mean"][0] == pytest.approx(1, abs=0.02)


def test_the_bias_of_dense_codes_is_exact_for_equal_entries():
    """Everything active and equal: z^2 / f^2 - 1 = (h - 1) times the mean cosine."""
    found = measured(Directions(32, 8, "random", "equal", (32,), 8, 0))
    assert found["lean"] == pytest.approx([1])
    assert found["ratio_mean"][0] - 1 == pytest.approx(31 * found["mean_cosine"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("arrangement", "square", "arrangement must be one of random, repelled, .*, got 'square'"),
        ("arrangement", "simplex", "simplex directions do not come as 16 in 8 dimensions"),
        ("law", "cauchy", "law must be one of uniform, signed, .*, got 'cauchy'"),
        ("ks", (1, 2), r"ks must be between 2 and n_atoms=16, got \(1, 2\)"),
        ("ks", (17,), "ks must be between"),
        ("ks", (), "ks must be between"),
        ("samples", 1, "samples must be at least 2, got 1"),
    ],
)
def test_a_run_refuses_nonsense(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(RUN, **{field: value})


@pytest.mark.parametrize("preset", ["smoke", "cpu", "gpu", "paper"])
@pytest.mark.parametrize("study", theory.STUDIES, ids=lambda study: study.name)
def test_every_preset_lists_runs_with_a_cost(study, preset):
    runs = study.runs(preset)
    assert len({run.seed for run in runs}) >= (2 if preset == "smoke" else 5)
    assert all(0 < study.cost(run) < math.inf for run in runs)


def test_released_points():
    found = theory.released_points().set_index("model")
    assert found.loc["GPT-2 small", ["c_lbo", "c_welch", "finite_k"]].tolist() == pytest.approx(
        [0.34, 872, 29], rel=0.01
    )
    assert found.loc["Gemma 2 2B", ["c_lbo", "c_welch", "finite_k"]].tolist() == pytest.approx(
        [0.58, 316, 52], rel=0.01
    )
    assert [len(one) for one in found.spreads] == [12, 25]
    assert found.spreads.iloc[0][6] == pytest.approx((1 / 0.77**2 - 1 / 0.86**2) / 1.349)


def rows(arrangement="random", seeds=5, d=64, h=512, ks=(4, 8, 16), law="uniform", **changed) -> pd.DataFrame:
    """A table as the studies store it; `changed` are columns, a value, a list over k or a function of the seed."""
    count = len(ks)
    lists = dict.fromkeys(theory.LISTS, 0.0) | {
        "k": list(ks),
        "effective": [0.92 * k for k in ks],
        "ratio_50": 1.0,
        "ratio_mean": 1.0,
        "sd": (2 / d) ** 0.5,
        "eps_lbo": 1e-4,
        "reached_k": 0.5,
    }
    scalars = {"eps": 0.4, "welch": 0.1, "mean_square": 1 / d, "mean_cosine": 0.0, "finite_k": 3, "finite_l1": 3}
    found = []
    for seed in range(seeds):
        given = {name: value(seed) if callable(value) else value for name, value in changed.items()}
        row = {"arrangement": arrangement, "law": law, "n_atoms": h, "d_in": d, "samples": 100, "seed": seed}
        for name, value in (lists | scalars | given).items():
            row[name] = value if name in scalars or isinstance(value, list) else [value] * count
        found.append(row)
    return pd.DataFrame(found)


def bound_rows(reached=1.0, signed=50, broken=0) -> pd.DataFrame:
    on_bound = {"reached_h": reached, "reached_k": reached, "reached_l1": reached, "law": "equal"}
    return pd.concat(
        [
            rows(violations_l1=broken),
            rows("simplex", d=64, h=65, **on_bound),
            rows("aligned", d=64, h=63, **on_bound),
            rows("antipodal", d=64, h=128, violations_signed=signed),
        ],
        ignore_index=True,
    )


class TestT1:
    def test_is_replicated_without_a_violation(self):
        found = theory.bound_holds(bound_rows())
        assert (found.verdict, found.ours, found.low, found.high) == ("replicated", 0, 0, 0)
        assert "50% of the codes of antipodal directions" in found.summary

    def test_is_not_replicated_with_one(self):
        found = theory.bound_holds(bound_rows(broken=lambda seed: int(seed == 0)))
        assert found.verdict == "not replicated"
        assert found.ours == pytest.approx(3 / 1200 / 5)

    def test_is_void_where_it_could_not_fail(self):
        assert theory.bound_holds(bound_rows(reached=0.9)).verdict == "void"
        assert theory.bound_holds(bound_rows(signed=lambda seed: int(seed > 0))).verdict == "void"

    def test_needs_its_adversaries(self):
        with pytest.raises(NoEvidence):
            theory.bound_holds(rows())
        with pytest.raises(NoEvidence):
            theory.bound_holds(bound_rows().query("arrangement != 'antipodal'"))


class TestT2:
    def test_verdicts(self):
        assert theory.norms_agree(rows()).verdict == "replicated"
        assert theory.norms_agree(rows()).ours == pytest.approx(1)
        assert theory.norms_agree(rows(ratio_50=0.8)).verdict == "partly"
        assert theory.norms_agree(rows(sd=0.5)).verdict == "partly"
        assert theory.norms_agree(rows(ratio_50=0.8, sd=0.5)).verdict == "not replicated"

    def test_the_worst_cell_counts(self):
        assert theory.norms_agree(rows(ratio_50=[1.0, 1.0, 0.8], sd=[0.17, 0.17, 0.5])).verdict == "not replicated"

    def test_leaves_out_what_the_rule_does_not_name(self):
        others = [rows(d=32, h=256, sd=0.01), rows(h=128, sd=0.01), rows(ks=(2, 32, 64), sd=0.01)]
        assert theory.norms_agree(pd.concat([rows(), *others])).verdict == "replicated"
        with pytest.raises(NoEvidence):
            theory.norms_agree(pd.concat(others))


def falling(power, gain=0.9) -> pd.DataFrame:
    def line(arrangement, d, factor):
        return rows(arrangement, d=d, h=8 * d, sd=lambda seed: factor * (1 + 0.01 * seed) * d**power, eps=0.4 * factor)

    return pd.concat([line(a, d, f) for d in (32, 128) for a, f in (("random", 1), ("repelled", gain))])


class TestT3:
    def test_verdicts(self):
        found = theory.spread_shrinks(falling(-0.5))
        assert (found.verdict, found.ours) == ("replicated", pytest.approx(-0.5))
        assert "0.90 times the eps of random ones and 0.90 times" in found.summary
        assert theory.spread_shrinks(falling(-0.5, gain=1.1)).verdict == "partly"
        assert theory.spread_shrinks(falling(-0.3)).verdict == "partly"
        assert theory.spread_shrinks(falling(0.0, gain=1.1)).verdict == "not replicated"

    def test_needs_two_widths_and_both_arrangements(self):
        with pytest.raises(NoEvidence, match="two widths"):
            theory.spread_shrinks(rows())
        with pytest.raises(NoEvidence, match="random and repelled"):
            theory.spread_shrinks(falling(-0.5).query("arrangement == 'random'"))


class TestT4:
    def test_verdicts(self):
        """eps = 0.4 and h = 512: eps (h - 1) = 204."""
        found = theory.bound_is_informative(rows())
        assert (found.verdict, found.ours) == ("not replicated", pytest.approx(0.4 * 511))
        assert "an upper bound in 0% of the dictionaries" in found.summary
        assert theory.bound_is_informative(rows(eps_lbo=0.1)).verdict == "partly"
        assert theory.bound_is_informative(rows(eps=0.001, eps_lbo=0.0005)).verdict == "replicated"

    def test_is_about_superposition(self):
        with pytest.raises(NoEvidence):
            theory.bound_is_informative(rows(h=64))


def dense_rows(**quarter) -> pd.DataFrame:
    signed = rows(d=32, h=256, ks=(64, 256), law="signed")
    return pd.concat([rows(d=32, h=256, ks=(64,), **quarter), rows(d=32, h=256, ks=(256,), ratio_50=0.5), signed])


class TestT5:
    def test_verdicts(self):
        found = theory.dense_codes_agree(dense_rows())
        assert found.verdict == "replicated" and "holds in 5 of 5 dictionaries" in found.summary
        assert theory.dense_codes_agree(dense_rows(ratio_50=0.8)).verdict == "partly"
        assert theory.dense_codes_agree(dense_rows(ratio_50=0.8, sd=0.01)).verdict == "not replicated"
        assert found.ours == pytest.approx(0, abs=1e-9)

    def test_needs_its_cells(self):
        with pytest.raises(NoEvidence):
            theory.dense_codes_agree(rows(d=32, h=256, ks=(64,)))


def test_the_table_of_violations():
    found = theory.violation_table(bound_rows(broken=2)).set_index("directions")
    assert found.loc["random"].tolist() == ["1,500", "0, 0, 30", "0.000, 0.500, 0.000", "0.0%"]
    assert found.loc["simplex", "reached"] == "1.000, 1.000, 1.000"
    assert found.loc["antipodal", "signed eps violated"] == "50.0%"


@pytest.mark.parametrize("name", theory.FIGURES)
def test_figures_draw_from_what_is_measured(name, smoke, tmp_path):
    study, function, arguments = theory.FIGURES[name]
    figure = figures.named(function)(*arguments(smoke[study.name]))
    figure.savefig(tmp_path / "figure.png")
    for axes in figure.axes:
        assert axes.get_xlabel() and axes.lines
    assert figure.axes[0].get_ylabel()


def test_measured_rows_hold_the_bound_and_are_finite(smoke):
    for found in smoke.values():
        table = theory.by_k(found)
        assert np.isfinite(table.select_dtypes("number").to_numpy()).all()
        assert not table[["violations_h", "violations_k", "violations_l1"]].to_numpy().any()
    assert theory.bound_holds(smoke[theory.BOUND.name]).verdict == "replicated"
