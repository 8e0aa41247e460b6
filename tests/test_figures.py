"""Every figure draws from a table of the shape its study stores, with labelled axes and the right colours."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from test_gao2024_codes import refined_rows, time_rows
from test_gao2024_dead import ablations
from test_gao2024_explanations import explained_table, simulated_table
from test_gao2024_probes import effects_table, probe_table
from test_gao2024_scaling import against_noise, batches, family, grid, sweep, training
from test_gao2024_systems import average_table, departure_table, error_table, shards, speeds

from replication import figures
from replication.papers import gao2024
from replication.sae import ARCHITECTURES


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def frontier_table() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "d_sae": n,
                "seed": seed,
                "architecture": name,
                "sparsity": dial,
                "l0": l0 * (1 + 0.1 * seed),
                "nmse": 1 / l0,
                "dead": 0.0,
                "nmse_untrained": 0.9,
                "nmse_pca": 0.5,
                "curve_tokens": [10, 100],
                "curve_error": [0.9, 0.5],
                "options": f"(('gradient', '{gradient}'),)" if gradient else "()",
                "source": "X(model='pygpt-0.5m')",
                "delta_ce": 1 / l0,
                "kl": 2 / l0,
                "delta_ce_zero": 5.0,
                "delta_ce_mean": 3.0,
                "loss_recovered": 1 - 0.2 / l0,
                "compute_share": 0.01 * l0,
            }
            for n in (64, 256)
            for seed in range(2)
            for name, gradient in (("topk", ""), ("relu", ""), ("gated", ""), ("prolu", "ste"), ("prolu", "relu"))
            for dial, l0 in ((4, 4), (2, 8), (1, 16))
        ]
    )


def dead_table() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"tied_init": tied, "options": options, "seed": seed, "dead": 0.1 * seed, "nmse": 0.3}
            for tied in (True, False)
            for options in ("()", "x")
            for seed in range(2)
        ]
    )


TABLES = {
    "frontier": frontier_table,
    "error-gap": frontier_table,
    "training-curves": frontier_table,
    "downstream": frontier_table,
    "downstream-at-equal-l0": frontier_table,
    "compute-equivalent": frontier_table,
    "dead-latents": dead_table,
    "ablations": ablations,
    "loss-scale": ablations,
    "two-metrics": error_table,
    "departures": departure_table,
    "averages": average_table,
    "sparse-kernels": lambda: speeds((2.0, 4.0)).assign(ms_sparse=2.0, ms_dense=6.0),
    "sharded-topk": lambda: shards({2: 0.9, 4: 1.0}),
    "refinement": refined_rows,
    "refinement-errors": refined_rows,
    "test-time": lambda: time_rows(lambda m: 1 / m, lambda m: 2 / m),
    "test-time-downstream": lambda: time_rows(lambda m: 1 / m, lambda m: 2 / m),
    "probe-loss": probe_table,
    "probe-tasks": probe_table,
    "effect-sparsity": effects_table,
    "densest-latents": effects_table,
    "explanations-topk-relu": explained_table,
    "explanations-f1": explained_table,
    "explanations-downstream": simulated_table,
    "compute": training,
    "joint-law": grid,
    "learning-rates": lambda: sweep(-0.5),
    "tokens-to-convergence": grid,
    "batch-sizes": lambda: batches(0.005),
    "gaussian": lambda: against_noise(0.25),
    "subjects": family,
}
FIGURES = gao2024.FIGURES  # those of papers on synthetic data are drawn from smoke rows, by the tests of their pages


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_labelled_and_something_is_drawn(name, tmp_path):
    _, function, arguments = FIGURES[name]
    figure = figures.named(function)(*arguments(TABLES[name]()))
    figure.savefig(tmp_path / "figure.png")
    assert figure.axes[0].get_ylabel()
    for axes in figure.axes:
        assert axes.get_xlabel() or [label.get_text() for label in axes.get_xticklabels() if label.get_text()]
        assert axes.lines or axes.patches


def test_every_architecture_has_one_colour_and_a_name():
    assert ARCHITECTURES.keys() == figures.COLOURS.keys() == figures.NAMES.keys()
    assert len(set(figures.COLOURS.values())) == len(figures.COLOURS)


def test_a_line_is_the_mean_over_seeds_and_its_band_the_range():
    _, function, arguments = FIGURES["frontier"]
    figure = figures.named(function)(*arguments(frontier_table()))
    axes = figure.axes[0]
    line = next(line for line in axes.lines if line.get_label() == "TopK")
    assert to_rgb(line.get_color()) == to_rgb(figures.COLOURS["topk"])
    np.testing.assert_allclose(line.get_xdata(), [4.2, 8.4, 16.8])
    np.testing.assert_allclose(line.get_ydata(), [1 / 4, 1 / 8, 1 / 16])
    assert len(axes.collections) == 5


def step_table() -> pd.DataFrame:
    speeds = {"floor": 1, "replication": 2, "plain autograd": 8, "sae-lens": 6}
    rows = [
        {"implementation": name, "method": method, "dead": dead, "precision": "fp32", "n": n, "d": 8, "ms": ms * n}
        for name, ms in speeds.items()
        for method, dead in (("topk", 0.0), ("topk", 0.1), ("jumprelu", 0.0))
        for n in (512, 2048)
        if name != "floor" or (method, dead) == ("topk", 0.0)
    ]
    return pd.DataFrame([*rows, {"implementation": "eai-sparsify"}])  # a peer that was skipped has nothing but a name


def test_step_times_draw_every_implementation_and_the_floor(tmp_path):
    figure = figures.step_times(step_table())
    figure.savefig(tmp_path / "figure.png")
    topk, jumprelu = figure.axes
    assert (topk.get_title(loc="left"), jumprelu.get_title(loc="left")) == ("TopK, 10% dead", "JumpReLU")
    assert topk.get_ylabel() == "time of one step (ms)" and topk.get_xscale() == topk.get_yscale() == "log"
    lines = {line.get_label(): line for line in jumprelu.lines}
    assert lines.keys() == {"floor (TopK, no AuxK)", "this library, fp32", "plain autograd, fp32", "sae-lens, fp32"}
    np.testing.assert_allclose(lines["this library, fp32"].get_ydata(), [1024, 4096])
    assert to_rgb(lines["this library, fp32"].get_color()) == to_rgb(figures.COLOURS["jumprelu"])


def test_step_table_shows_the_faster_precision_beside_ours():
    rows = [("replication", "bf16", 2.0, 1.0, 4.0), ("sae-lens", "fp32", 9.0, 4.5, 18.0)]
    rows += [("sae-lens", "bf16", 6.0, 3.0, 12.0), ("floor", "bf16", 0.5, 0.25, 1.0)]
    columns = ["implementation", "precision", "ms", "ratio_to_ours", "ratio_to_floor"]
    table = pd.DataFrame(rows, columns=columns).assign(method="topk", dead=0.1, n=512.0)
    table = pd.concat([table, pd.DataFrame([{"implementation": "eai-sparsify"}])])
    [line] = figures.step_table(table).to_dict("records")
    expected = {"method": "TopK + AuxK", "n": "512", "ours, ms": "2.0", "in floors": "4.0", "sae-lens": "3.0×"}
    assert line == expected


def test_step_parts_fill_the_bar(tmp_path):
    parts = pd.DataFrame([{"part": part, "n": 512, "d": 8, "ms": 2.0} for part in figures.PART_COLOURS])
    figure = figures.step_parts(parts)
    figure.savefig(tmp_path / "figure.png")
    (axes,) = figure.axes
    assert axes.get_xlabel() and axes.get_ylabel()
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([1 / 7] * 7)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["n=512, d=8\n14 ms"]
