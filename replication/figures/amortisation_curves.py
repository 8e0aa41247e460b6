"""Figures of the pages on known codes or dictionary, and on neither known: MCC against steps and operations."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _panels

LOOKS = {  # label -> colour, dashes, marker
    "SAE": (COLOURS["relu"], "-", ""),
    "MLP 32": (COLOURS["gated"], ":", ""),
    "MLP 256": (COLOURS["gated"], "--", ""),
    "MLP 1024": (COLOURS["gated"], "-", ""),
    "MLP 4096": (COLOURS["gated"], "-.", ""),
    "per-sample Adam": (COLOURS["jumprelu"], "-", ""),
    "SAE + per-sample Adam": (COLOURS["relu"], "", "s"),
    "sparse coding": (COLOURS["jumprelu"], "-", ""),
    "FISTA": (COLOURS["topk"], "-", ""),
    "DL-FISTA": (COLOURS["topk"], "-", ""),
    "scikit-learn": (COLOURS["topk"], "", "D"),
}
LISTA = (COLOURS["batchtopk"], "", "^")


def _look(label: str) -> dict:
    colour, dashes, marker = LOOKS.get(label, LISTA)
    return {"color": colour, "linestyle": dashes or "none", "marker": marker or None, "markersize": 5, "label": label}


def _draw(axes, curves: pd.DataFrame, x: str, y: str) -> None:
    """A line per method: mean over data seeds and starts, the band from the lowest to the highest."""
    for label, cell in curves.dropna(subset=[x]).groupby("label", sort=False):
        cell = cell[cell[x] > 0]
        look = _look(label)
        if cell.step.nunique() == 1 and len(cell):
            low, high = cell[y].mean() - cell[y].min(), cell[y].max() - cell[y].mean()
            look |= {"marker": look["marker"] or "o", "linestyle": "none"}
            axes.errorbar([cell[x].mean()], [cell[y].mean()], yerr=[[low], [high]], **look)
        elif len(cell):
            _band(axes, cell, x, y, "step", **look)


def _level(axes, value: float, name: str, dashes: str, colour=CONTROL) -> None:
    axes.axhline(value, color=colour, linestyle=dashes, linewidth=1.2, label=name)


def _stored(axes, points: pd.DataFrame, x: str, y: str = "mcc") -> None:
    """Published points: black edge, filled with the colour of the method."""
    for place, row in enumerate(points.itertuples()):
        name = "published (stored results)" if place == 0 else None
        axes.plot(
            [getattr(row, x)],
            [getattr(row, y)],
            "o",
            color=_look(row.label)["color"],
            markeredgecolor=PUBLISHED,
            markersize=6,
            linestyle="none",
            label=name,
            zorder=4,
        )


def _legend(figure: Figure, panels) -> None:
    entries = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in entries}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3)


def codes_known(curves: pd.DataFrame, levels: Mapping[str, float], published: Mapping[str, tuple]) -> Figure:
    """Signed MCC against steps, operations as released and corrected; columns label, data_seed, seed, step, mcc,
    released, training. Ticks at the right of the first panel are the stored last values, method -> (mean, sd)."""
    panels_of = (
        ("step", "training steps"),
        ("released", "training, FLOPs as released"),
        ("training", "training, FLOPs corrected"),
    )
    figure, panels = _panels(3, sharey=True, figsize=(10, 4.6))
    for axes, (x, name) in zip(panels, panels_of, strict=True):
        _draw(axes, curves, x, "mcc")
        _level(axes, levels["oracle"], "l0 oracle", "-", COLOURS["topk"])
        _level(axes, levels["shuffled"], "chance: shuffled codes", ":")
        axes.set(xscale="log", xlabel=name)
    for place, (label, (mean, _)) in enumerate(published.items()):
        look = _look(label)["color"]
        name = "published last value" if place == 0 else None
        panels[0].plot(
            [curves.step.max() * 1.6], [mean], "o", color=look, markeredgecolor=PUBLISHED, markersize=6, label=name
        )
    panels[0].set_ylabel("MCC on test samples")
    _legend(figure, panels)
    return figure


def dictionary_known(
    curves: pd.DataFrame, levels: Mapping[str, float], by_step: pd.DataFrame, by_flops: pd.DataFrame
) -> Figure:
    """MCC against Adam's steps and against operations as released; `by_step` and `by_flops` are stored points with
    columns label, step or released, mcc."""
    figure, panels = _panels(2, sharey=True, figsize=(9, 5))
    moving = curves[curves.method.isin(["sae", "mlp", "ito"])]
    for axes, (x, name, points) in zip(
        panels,
        (("step", "steps of Adam", by_step), ("released", "FLOPs as released (training + one test batch)", by_flops)),
        strict=True,
    ):
        _draw(axes, moving, x, "mcc")
        _stored(axes, points, x)
        _level(axes, levels["oracle"], "l0 oracle", "-", COLOURS["topk"])
        _level(axes, levels["random"], "chance: random dictionary", "--")
        _level(axes, levels["shuffled"], "chance: shuffled codes", ":")
        axes.set(xscale="log", xlabel=name)
    _draw(panels[1], curves[curves.method == "fista"], "released", "mcc")
    panels[0].set_ylabel("latent MCC on test samples")
    _legend(figure, panels)
    return figure


def per_sample(points: pd.DataFrame, levels: Mapping[str, float]) -> Figure:
    """MCC against training operations (corrected) and, apart from them, against those of one sample's codes; columns
    label, method, data_seed, seed, step, mcc, training, inference."""
    figure, panels = _panels(2, sharey=True, figsize=(9, 5))
    trained = points[points.method.isin(["sae", "mlp"])]
    for axes, (x, name, cell) in zip(
        panels,
        (
            ("training", "training, FLOPs corrected", trained),
            ("inference", "codes of one sample, FLOPs", points),
        ),
        strict=True,
    ):
        _draw(axes, cell, x, "mcc")
        _level(axes, levels["oracle"], "l0 oracle", "-", COLOURS["topk"])
        _level(axes, levels["random"], "chance: random dictionary", "--")
        axes.set(xscale="log", xlabel=name)
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0].set_ylabel("latent MCC on test samples")
    _legend(figure, panels)
    return figure


_SCORES = (
    ("latent", "latent MCC on test samples", "random", "chance: random dictionary"),
    ("pearson", "dictionary MCC (Pearson)", "pearson", "chance: random dictionary"),
    ("cosine", "dictionary cosine (Hungarian)", "cosine", "chance: random dictionary"),
)


def neither_known(curves: pd.DataFrame, levels: Mapping[str, float], published: pd.DataFrame) -> Figure:
    """Latent MCC and dictionary scores in both versions against steps (rounds of DL-FISTA); columns label, data_seed,
    seed, step, latent, pearson, cosine. Ringed dots: the stored last values, columns label, latent, pearson."""
    figure, panels = _panels(3, figsize=(10.5, 5))
    at = published.assign(step=curves.step.max() * 1.8)
    for axes, (y, name, chance, words) in zip(panels, _SCORES, strict=True):
        _draw(axes, curves, "step", y)
        if y in at:
            _stored(axes, at, "step", y)
        _level(axes, levels["oracle"] if y == "latent" else 1.0, "oracle", "-", COLOURS["topk"])
        _level(axes, levels[chance], words, "--")
        axes.set(xscale="log", xlabel="steps, rounds of DL-FISTA", ylabel=name)
    _legend(figure, panels)
    return figure


def neither_known_compute(curves: pd.DataFrame, levels: Mapping[str, float], published: pd.DataFrame) -> Figure:
    """Latent MCC against operations of training, as released and corrected; columns as in `neither_known`, with
    released and training. `published` has columns label, latent, released and corrected, test codes included."""
    figure, panels = _panels(2, sharey=True, figsize=(9, 5))
    for axes, (x, points, name) in zip(
        panels,
        (
            ("released", "released", "training, FLOPs as released"),
            ("training", "corrected", "training, FLOPs corrected"),
        ),
        strict=True,
    ):
        _draw(axes, curves, x, "latent")
        _stored(axes, published, points, "latent")
        _level(axes, levels["oracle"], "oracle", "-", COLOURS["topk"])
        _level(axes, levels["random"], "chance: random dictionary", "--")
        axes.set(xscale="log", xlabel=name)
    panels[0].set_ylabel("latent MCC on test samples")
    _legend(figure, panels)
    return figure
