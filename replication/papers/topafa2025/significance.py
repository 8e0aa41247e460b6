"""Significance and description length: released tests recomputed, and ours across steps and across seeds (A6, A9)."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from replication.claims import NOTHING, Claim, Evidence, mean_interval
from replication.papers.topafa2025 import published
from replication.papers.topafa2025.lm import (
    BASELINES,
    SELECTION,
    about_gaps,
    best_pairs,
    cells_of,
    gaps,
    in_all,
    plain,
    undominated,
)

ALPHA = 0.05
TOLERANCE = 1.1  # A9: a baseline may have this many times top-AFA's NMSE
NAMES = {"topk": "TopK", "batchtopk": "BatchTopK", "topafa": "top-AFA"}


def welch(mean_a: float, var_a: float, n_a: int, mean_b: float, var_b: float, n_b: int) -> tuple[float, float]:
    """Welch's t = (mean_a - mean_b) / sqrt(var_a / n_a + var_b / n_b) and its two-sided p, from moments."""
    found = stats.ttest_ind_from_stats(mean_a, var_a**0.5, n_a, mean_b, var_b**0.5, n_b, equal_var=False)
    return float(found.statistic), float(found.pvalue)


def description_length(l0, d_sae: int, bits: float = published.BITS):
    """Bits per token, L0 (B + log2 D): for each active latent its value and its name."""
    return l0 * (bits + np.log2(d_sae))


# --------------------------------------------------------------------------------------------------------------------
# The released numbers


def released_tests() -> pd.DataFrame:
    """The released t-tests, recomputed from their means and variances: layer, method, dial (k), gap (relative
    difference of means), reach (half of its 95 % interval over steps), t, p, t_released, p_released, cohen_d."""
    rows = []
    for one in published.T_TESTS:
        n = published.STEPS
        t, p = welch(one.mean_a, one.var_a, n, one.mean_b, one.var_b, n)
        error = ((one.var_a + one.var_b) / n) ** 0.5
        rows.append(
            {
                "layer": one.layer,
                "method": one.method,
                "dial": one.b,
                "gap": one.mean_a / one.mean_b - 1,
                "reach": 1.96 * error / one.mean_b,
                "t": t,
                "p": p,
                "t_released": one.t,
                "p_released": one.p,
                "cohen_d": (one.mean_a - one.mean_b) / ((one.var_a + one.var_b) / 2) ** 0.5,
            }
        )
    return pd.DataFrame(rows)


def with_bits(table: pd.DataFrame, d_sae: int) -> pd.DataFrame:
    """`table` with the column `bits`, the description length of its L0."""
    return table.assign(bits=description_length(table.l0, d_sae))


def shortest(table: pd.DataFrame, nmse: float) -> pd.Series | None:
    """The baseline run of the shortest code with at most TOLERANCE times this NMSE; None if no run has."""
    enough = table[table.method.isin(BASELINES) & (table.lee_nmse <= TOLERANCE * nmse)]
    return None if enough.empty else enough.loc[enough.l0.idxmin()]


def picks(table: pd.DataFrame) -> pd.DataFrame:
    """Runs that a comparison of code lengths reads, per layer: `kind` "lowest NMSE" of each method (the authors'
    choice), and "equal tolerance", the shortest baseline about as good as the best top-AFA."""
    rows = []
    for _, cell in table.groupby("layer"):
        best = {method: runs.loc[runs.lee_nmse.idxmin()] for method, runs in cell.groupby("method")}
        rows += [one.to_dict() | {"kind": "lowest NMSE"} for one in best.values()]
        equal = shortest(cell, best["topafa"].lee_nmse)
        if equal is not None:
            rows.append(equal.to_dict() | {"kind": "equal tolerance"})
    return pd.DataFrame(rows)


def released_lengths() -> pd.DataFrame:
    """Per layer and method the released bits of the run with the lowest NMSE, recomputed ones, and those of the
    shortest baseline at equal tolerance."""
    table = with_bits(published.results(), published.D_SAE)
    chosen = picks(table)
    rows = []
    for (layer, method), (nmse, bits) in published.MDL.items():
        mine = chosen[(chosen.layer == layer) & (chosen.kind == "lowest NMSE")].set_index("method")
        equal = chosen[(chosen.layer == layer) & (chosen.kind == "equal tolerance")]
        rows.append(
            {
                "layer": layer,
                "method": method,
                "nmse_released": nmse,
                "nmse": mine.lee_nmse[method],
                "bits_released": bits,
                "bits": mine.bits[method],
                "bits_equal": equal.bits.iloc[0] if len(equal) else np.nan,
                "ratio": mine.bits["topafa"] / equal.bits.iloc[0] if len(equal) else np.nan,
            }
        )
    return pd.DataFrame(rows).sort_values(["layer", "method"])


def released_frontier() -> pd.DataFrame:
    """The released top-AFA runs with the column `free`: no released baseline of the layer dominates it."""
    table = published.results()
    parts = []
    for _, cell in table.groupby("layer"):
        afa = cell[cell.method == "topafa"]
        parts.append(afa.assign(free=undominated(afa, cell[cell.method != "topafa"])))
    return pd.concat(parts)


def released_tests_table() -> pd.DataFrame:
    """`released_tests`, ready to be read."""
    table = released_tests()
    lambdas = [f"1/{1 / one.a:.0f}" for one in published.T_TESTS]
    return pd.DataFrame(
        {
            "layer": table.layer,
            "top-AFA λ": lambdas,
            "baseline": table.method.map(NAMES) + table.dial.map(", k = {:,}".format),
            "difference": table.gap.map("{:+.1%}".format),
            "t released": table.t_released.map("{:.2f}".format),
            "t recomputed": table.t.map("{:.2f}".format),
            "p released": table.p_released.map("{:.1e}".format),
            "p recomputed": table.p.map("{:.1e}".format),
            "Cohen's d": table.cohen_d.map("{:.2f}".format),
        }
    )


def released_lengths_table() -> pd.DataFrame:
    """`released_lengths`, ready to be read."""
    table = released_lengths()
    own = table.method == "topafa"
    return pd.DataFrame(
        {
            "layer": table.layer,
            "method": table.method.map(NAMES),
            "lowest NMSE": table.nmse.map("{:.3e}".format),
            "bits released": table.bits_released.map("{:,.0f}".format),
            "bits recomputed": table.bits.map("{:,.0f}".format),
            "equal tolerance, bits": table.bits_equal.map("{:,.0f}".format).where(own, ""),
            "top-AFA over it": table.ratio.map("{:.2f}".format).where(own, ""),
        }
    )


def released_frontier_table() -> pd.DataFrame:
    """`released_frontier` per layer, ready to be read."""
    table = released_frontier()
    lines = []
    for layer, cell in table.groupby("layer"):
        free = cell[cell.free]
        lines.append(
            {
                "layer": layer,
                "top-AFA runs": len(cell),
                "undominated": len(free),
                "their λ": ", ".join(f"1/{1 / one:.0f}" for one in free.sparsity),
                "their L0/d": ", ".join(f"{one:.2f}" for one in free.l0_over_d),
                "with L0 < d": int((free.l0_over_d < 1).sum()),
            }
        )
    total = {"layer": "all", "top-AFA runs": len(table), "undominated": int(table.free.sum()), "their λ": ""}
    below = int((table.free & (table.l0_over_d < 1)).sum())
    return pd.DataFrame([*lines, total | {"their L0/d": "", "with L0 < d": below}])


# --------------------------------------------------------------------------------------------------------------------
# Ours


def step_tests(rows: pd.DataFrame) -> pd.DataFrame:
    """The authors' test on our runs: the best top-AFA against the best baseline, minibatches of one seed as samples.

    One line per layer and seed: gap (relative difference), reach (half of the 95 % interval over minibatches), t, p.
    """
    pairs = best_pairs(rows)
    found = [
        _stepwise(one.step_mean_a, one.step_var_a, one.steps_a, one.step_mean_b, one.step_var_b, one.steps_b)
        for one in pairs.itertuples()
    ]
    return pd.concat([pairs[["layer", "seed", "method_b", "dial_a", "dial_b"]], pd.DataFrame(found)], axis=1)


def _stepwise(mean_a, var_a, n_a, mean_b, var_b, n_b) -> dict[str, float]:
    t, p = welch(mean_a, var_a, n_a, mean_b, var_b, n_b)
    reach = stats.norm.ppf(1 - ALPHA / 2) * (var_a / n_a + var_b / n_b) ** 0.5 / mean_b
    return {"gap": mean_a / mean_b - 1, "reach": reach, "t": t, "p": p}


def placebo(rows: pd.DataFrame) -> pd.DataFrame:
    """The authors' test on two seeds of one setting, where there is no difference of method: layer, method, dial, t,
    p for every pair of seeds. Were minibatches of one run a sample of what is claimed, 5 % would have p < 0.05."""
    found = []
    for (one, method, dial), cell in plain(rows).groupby(["layer", "method", "dial"]):
        for a, b in combinations(cell.sort_values("seed").itertuples(), 2):
            test = _stepwise(a.step_mean, a.step_var, a.steps, b.step_mean, b.step_var, b.steps)
            found.append({"layer": one, "method": method, "dial": dial} | test)
    return pd.DataFrame(found)


def alarms_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How many tests over minibatches have p < ALPHA: between methods, and between two seeds of one setting."""
    steps, alarms = step_tests(rows), placebo(rows)
    compared = {"top-AFA against the best baseline": steps}
    compared |= {f"two seeds of {NAMES[name]}, one setting": cell for name, cell in alarms.groupby("method")}
    return pd.DataFrame(
        [
            {
                "compared": name,
                "tests": len(one),
                f"p < {ALPHA}": f"{(one.p < ALPHA).sum()} ({(one.p < ALPHA).mean():.0%})",
            }
            for name, one in compared.items()
        ]
    )


def tests_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Per layer: what is compared, the gap over seeds with its interval, p across seeds (paired, Welch) and across the
    minibatches of each seed. Ready to be read."""
    pairs, steps = best_pairs(rows), step_tests(rows)
    lines = []
    intervals = over_seeds(pairs).set_index("layer")
    for one, cell in pairs.groupby("layer"):
        a, b = cell.lee_nmse_a, cell.lee_nmse_b
        here = steps[steps.layer == one]
        lines.append(
            {
                "layer": f"{one:g}",
                "top-AFA λd": _settings(cell.dial_a.map("{:g}".format)),
                "baseline": _settings(cell.method_b.map(NAMES) + cell.dial_b.map(" k/d = {:.2g}".format)),
                "NMSE, top-AFA": f"{a.mean():.2e}",
                "NMSE, baseline": f"{b.mean():.2e}",
                "ratio [95 %, seeds]": "{:.2f} [{:.2f}, {:.2f}]".format(*(1 + intervals.loc[one])),
                "p, paired over seeds": f"{stats.ttest_rel(np.log(a), np.log(b)).pvalue:.2g}",
                "p, Welch over seeds": f"{stats.ttest_ind(np.log(a), np.log(b), equal_var=False).pvalue:.2g}",
                "p, Welch over steps of each seed": ", ".join(f"{p:.1g}" for p in here.p),
            }
        )
    return pd.DataFrame(lines)


def _settings(values: pd.Series) -> str:
    """The settings that were chosen, each once."""
    return ", ".join(dict.fromkeys(values))


def over_seeds(pairs: pd.DataFrame) -> pd.DataFrame:
    """Per layer, top-AFA's NMSE over the baseline's minus 1: geometric mean over seeds and its 95 % interval; layer,
    mean, low, high."""
    rows = []
    for one, cell in pairs.groupby("layer"):
        mean, low, high = (10**value - 1 for value in mean_interval(cell.gap))
        rows.append({"layer": one, "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def length_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Per layer and seed, log10 of the best top-AFA's code length over that of the shortest baseline of the same seed
    at equal tolerance, NaN where no baseline reaches it: layer, seed, ratio. D and B cancel: it is the ratio of L0."""
    pairs, table = best_pairs(rows), plain(rows)
    found = []
    for one in pairs.itertuples():
        cell = table[(table.layer == one.layer) & (table.seed == one.seed)]
        equal = shortest(cell, one.lee_nmse_a)
        ratio = np.nan if equal is None else np.log10(one.l0_a / equal.l0)
        found.append({"layer": one.layer, "seed": one.seed, "ratio": ratio})
    return pd.DataFrame(found)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of every setting, with bits: layer, method, dial, l0, lee_nmse, bits."""
    cells = plain(rows).groupby(["layer", "method", "dial"])[["l0", "lee_nmse"]].mean().reset_index()
    return with_bits(cells, int(rows.d_sae.iloc[0]))


def beats_significantly(rows: pd.DataFrame) -> Evidence:
    """A6: log10(NMSE of the best top-AFA / NMSE of the best baseline) below 0 over seeds, in every layer."""
    evidence, steps, alarms = about_gaps(gaps(rows, 0.0)), step_tests(rows), placebo(rows)
    return evidence._replace(
        summary=f"{evidence.summary}; across minibatches of one seed {(steps.p < ALPHA).sum()} of {len(steps)} "
        f"comparisons have p < {ALPHA}, and so have {(alarms.p < ALPHA).sum()} of {len(alarms)} between two seeds of "
        "one setting"
    )


def shorter_code(rows: pd.DataFrame) -> Evidence:
    """A9: the code of the best top-AFA at most as long as the shortest of the baselines at equal tolerance."""
    table = length_ratios(rows)
    known = table.dropna(subset="ratio")
    reached = known.groupby("layer").filter(lambda cell: len(cell) > 1)
    missing = table.layer.nunique() - reached.layer.nunique()
    if reached.empty:
        return Evidence("void", *NOTHING, "no baseline reaches the tolerance in two seeds of any layer")
    evidence = in_all(cells_of(reached, ["layer"], "ratio", 0, above=False), lambda ratio: f"{10**ratio:.2f} times")
    note = f"; in {missing} layers no baseline reaches the tolerance" if missing else ""
    return evidence._replace(
        summary=f"code of the best top-AFA over the shortest of the baselines {evidence.summary}{note}"
    )


STUDIES = ()  # the page reads the rows of `lm`

FIGURES = {  # name -> (study, function of the figures package, what it takes from the study's table)
    "topafa-differences": (
        SELECTION,
        "topafa_significance.differences",
        lambda rows: (released_tests(), step_tests(rows), over_seeds(best_pairs(rows))),
    ),
    "topafa-false-alarms": (
        SELECTION,
        "topafa_significance.false_alarms",
        lambda rows: (released_tests(), step_tests(rows), placebo(rows)),
    ),
    "topafa-lengths": (
        SELECTION,
        "topafa_significance.lengths",
        lambda rows: (means(rows), picks(means(rows))),
    ),
}

CLAIMS = (
    Claim(
        id="topafa2025-A6",
        statement="top-AFA has a significantly lower error than the best baseline.",
        rule=(
            "log10(NMSE of the best top-AFA / NMSE of the best baseline) on held-out tokens, one per seed, below 0 "
            "with its 95 % interval (a paired t-test at 5 %), in every layer. Settings are chosen on the other seeds; "
            "layers are void as in A3."
        ),
        published=(
            "−13.6 to −7.5 %, p from 4e-8 to 2e-4 (released; Welch's test over the last 100 training losses of one run "
            "each)"
        ),
        statistic="log10 ratio of NMSE, the worst layer",
        study=SELECTION,
        test=beats_significantly,
    ),
    Claim(
        id="topafa2025-A9",
        statement="At equal error the code of top-AFA is no longer than that of the baselines.",
        rule=(
            "Description length L0 (B + log2 D) of the best top-AFA at most that of the shortest TopK or BatchTopK run "
            f"with at most {TOLERANCE} times its NMSE, per seed, in every layer. (A coarse grid of k only helps "
            "top-AFA.)"
        ),
        published="1.99, 1.89 and 2.15 times in layers 6, 7 and 8 (released L0 and NMSE, compared at equal tolerance)",
        statistic="log10 ratio of code lengths, the worst layer",
        study=SELECTION,
        test=shorter_code,
    ),
)
