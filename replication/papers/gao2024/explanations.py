"""Explanations of latents by token patterns, N2G (figures 7, 9, 24, 25; C27 to C29)."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from replication.activations import NORMALISATIONS, LanguageModelActivations
from replication.claims import NOTHING, Claim, Evidence, NoEvidence, both, judge, mean_interval
from replication.evaluate import explanations as n2g
from replication.evaluate.downstream import downstream, heldout_blocks, subject
from replication.evaluate.explanations import ANY, START, Explained
from replication.metrics import nmse
from replication.papers.gao2024.frontier import COLLAPSED, at_equal_l0
from replication.papers.gao2024.grid import GRIDS, KEY, SEEDS, SOURCES, make_run
from replication.results import Study
from replication.shapes import Float, Tensor
from replication.store import trained
from replication.train import Run, Trained


class Budget(NamedTuple):
    """How much is measured. Text is in blocks of its context."""

    latents: int
    """Explained per SAE."""
    controls: int
    """Explained per untrained SAE."""
    blocks: int
    """Of training text to explain on, and as many of held-out text to score on."""
    downstream: int
    """Blocks behind a downstream loss."""
    places: int = n2g.EXAMPLES
    """From which a latent that is to be simulated is explained: every latent is."""


BUDGETS = {  # by the subject of a preset
    "pygpt-0.5m": Budget(8, 4, 64, 16),
    "pygpt-2m": Budget(36, 12, 512, 64, places=8),
    "pygpt-7m": Budget(200, 100, 4096, 128),
    "openai-community/gpt2": Budget(200, 100, 16384, 128),
}
SIZES = {"smoke": (64, 128), "cpu": (256, 1024), "gpu": (2**12, 2**13, 2**15), "paper": (2**13, 2**15, 2**17)}
SIMULATED = {  # dictionary sizes, k
    "smoke": ((32,), (4, 8)),
    "cpu": ((128, 256), (4,)),
    "gpu": ((2**12,), (4, 16)),
    "paper": ((2**15,), (32,)),
}
DENSE = 0.1  # C28 leaves out latents that are active on more of the tokens
TOLD = 0.5  # least recall of a worked example


def spent(preset: str) -> dict[str, str]:
    """The budget of a preset as a page prints it."""
    source, budget = SOURCES[preset], BUDGETS[SOURCES[preset].model]
    tokens = source.context * budget.blocks
    return {
        "latents explained per autoencoder": f"{budget.latents}; before training {budget.controls}",
        "text to explain on, text to score on": f"{tokens:,} tokens each, in blocks of {source.context}",
        "text behind each downstream loss": f"{source.context * budget.downstream:,} tokens",
        "places per latent to explain from, to measure recall on": f"up to {n2g.EXAMPLES} each",
        "places per latent to explain from where all latents are simulated": f"up to {budget.places}",
    }


def explained_runs(preset: str) -> list[Run]:
    """Figures 24 and 25: TopK over n and k; ReLU over lambda at the sizes of the frontier."""
    frontier_sizes, ks, lambdas, *_ = GRIDS[preset]
    topk, relu = product(SIZES[preset], ks), product(frontier_sizes, lambdas)
    cells = [("topk", *cell) for cell in topk] + [("relu", *cell) for cell in relu]
    return [make_run(preset, *cell, seed) for seed, cell in product(SEEDS, cells)]


def measure_explained(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Train each run, then explain a sample of its latents; of a TopK run, also before training."""
    for one in trained(runs):
        run, budget, device = one.run, BUDGETS[one.run.source.model], str(one.mean.device)
        found = n2g.explained(one.sae, run.source, budget.latents, budget.blocks, run.seed, device)
        row = _means(found) | _worked(found, run.source)
        if run.architecture == "topk":
            untrained = n2g.explained(one.untrained, run.source, budget.controls, budget.blocks, run.seed, device)
            row |= {f"{name}_untrained": value for name, value in _means(untrained).items()}
        yield run, row | one.log


def _means(found: Explained) -> dict[str, float | int | None]:
    """Means over latents. Precision leaves out explanations that predict nothing (`silent`); `n2g_f1_sparse` leaves
    out dense latents, and is None if there are no others."""
    recall, precision, f1 = found.scores
    silent, sparse = np.isnan(precision), found.density <= DENSE
    sizes = [len(pattern) for one in found.explanations.values() for pattern, _ in one.patterns()]
    return {
        "l0": found.l0,
        "latents": len(found.latents),
        "explainable": found.explainable,
        "n2g_recall": recall.mean().item(),
        "n2g_precision": precision[~silent].mean().item() if not silent.all() else 0.0,
        "n2g_f1": f1.mean().item(),
        "silent": silent.mean().item(),
        "density": found.density.mean().item(),
        "pattern_size": float(np.mean(sizes)),
        "latents_sparse": int(sparse.sum()),
        "n2g_f1_sparse": f1[sparse].mean().item() if sparse.any() else None,
    }


def _worked(found: Explained, source: LanguageModelActivations) -> dict[str, list]:
    """The most and the least precise explanation among those that catch at least half of a sparse latent's activity.

    Per example `stats` (latent, density, recall, precision), `patterns` (each a list of tokens, None for any token, ""
    for the start of the text) and their `values`; empty where no explanation qualifies.
    """
    recall, precision, _ = found.scores
    told = ((recall >= TOLD) & (found.density <= DENSE)).nonzero()[0]
    row = {}
    for name, choose in (("high", np.argmax), ("low", np.argmin)):
        at = [told[choose(precision[told])]] if len(told) else []
        patterns = [entry for i in at for entry in found.explanations[int(found.latents[i])].patterns()]
        stats = [(int(found.latents[i]), found.density[i], recall[i], precision[i]) for i in at]
        row |= {
            f"{name}_stats": [float(number) for numbers in stats for number in numbers],
            f"{name}_patterns": [_spelled(pattern, source) for pattern, _ in patterns],
            f"{name}_values": [round(value, 4) for _, value in patterns],
        }
    return row


def _spelled(pattern: tuple[int | str, ...], source: LanguageModelActivations) -> list[str | None]:
    tokenizer = subject(source).tokenizer
    special = {ANY: None, START: ""}
    return [special[key] if key in special else tokenizer.decode([key], skip_special_tokens=False) for key in pattern]


EXPLAINED = Study(KEY, "explanations", "How well token patterns explain latents", explained_runs, measure_explained)


def simulated_runs(preset: str) -> list[Run]:
    """Figure 7: TopK at sizes at which explaining every latent is affordable."""
    return [make_run(preset, "topk", n, k, seed) for seed, n, k in product(SEEDS, *SIMULATED[preset])]


def measure_simulated(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Train each run, explain every latent, and give the language model reconstructions from simulated latents."""
    for one in trained(runs):
        yield one.run, _substituted(one) | one.log


def _substituted(one: Trained) -> dict[str, float]:
    """Rises in the language model's loss when reconstructions stand in for activations, in nats per predicted token.

    `delta_ce` from simulated latents; controls: `_untrained`, the untrained SAE explained and simulated the same way;
    `_sae` from the true latents; `_bigram`, a bigram model's predictions in place of the language model's; `_lookup`,
    each token's mean activation in the text that explanations come from; `_constant`, the mean activation there. All
    but bigrams keep the mean and the norm of each true activation, as the SAE's own reconstructions do; `_mean` and
    `_zero` do not. `nmse` is the simulation's.
    """
    run, device = one.run, str(one.mean.device)
    source, budget = run.source, BUDGETS[run.source.model]
    tokens = heldout_blocks(source, budget.downstream)
    x = one.sae.normalise(n2g.read(source, tokens, device).x).x
    row: dict[str, float] = {}
    for name, sae in (("", one.sae), ("_untrained", one.untrained)):
        recon = n2g.simulated_reconstruction(sae, source, tokens, budget.blocks, run.seed, device, budget.places)
        row[f"delta_ce{name}"] = _rise(source, run.normalisation, recon)
        row[f"delta_ce{name}_first_kept"] = _rise(source, run.normalisation, recon, first_kept=True)
        row[f"nmse{name}"] = nmse(x, recon, one.mean).item()
    with_sae = downstream(source, one.sae.reconstruct, budget.downstream, device)
    row |= {"delta_ce_sae": with_sae["delta_ce"]}
    row |= {name: with_sae[name] for name in ("ce", "delta_ce_zero", "delta_ce_mean")}
    row["delta_ce_bigram"] = n2g.bigram_loss(source, budget.downstream) - row["ce"]
    return row | _without_latents(source, run.normalisation, device)


@lru_cache(maxsize=4)
def _without_latents(source: LanguageModelActivations, normalisation: str, device: str) -> dict[str, float]:
    """What a token's mean activation and the mean activation do in place of a reconstruction."""
    budget = BUDGETS[source.model]
    text, tokens = (
        n2g.random_text(source, "train", budget.blocks, device=device),
        heldout_blocks(source, budget.downstream),
    )
    x, _ = NORMALISATIONS[normalisation].apply(text.x)
    lookup = n2g.token_means(text, x, subject(source, device).d_vocab)[tokens.flatten().to(device)]
    return {
        "delta_ce_lookup": _rise(source, normalisation, lookup),
        "delta_ce_lookup_first_kept": _rise(source, normalisation, lookup, first_kept=True),
        "delta_ce_constant": _rise(source, normalisation, x.mean(0).expand_as(lookup)),
    }


def _rise(
    source: LanguageModelActivations, normalisation: str, recon: Float[Tensor, "n d"], first_kept: bool = False
) -> float:
    """delta_ce with normalised reconstructions of the first held-out tokens, which are handed out in their order."""
    left = recon

    def replace(x: Tensor) -> Tensor:
        nonlocal left
        rows, left = left[: len(x)], left[len(x) :]
        _, undo = NORMALISATIONS[normalisation].apply(x)
        new = undo(rows)
        if first_kept:
            new[:: source.context] = x[:: source.context]
        return new

    return downstream(source, replace, BUDGETS[source.model].downstream, str(recon.device))["delta_ce"]


SIMULATION = Study(
    KEY, "simulated-latents", "What explanations are worth to the language model", simulated_runs, measure_simulated
)


def explained_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Recall and precision of TopK's explanations over those of ReLU's, at each TopK run's L0, where ReLU was run.

    ReLU is interpolated as in `at_equal_l0`: outside its range of L0 the ratios are NaN.
    """
    rows = rows[rows.d_sae.isin(rows.d_sae[rows.architecture == "relu"])]
    at = {name: at_equal_l0(rows, f"n2g_{name}") for name in ("recall", "precision")}
    ratio = {name: found.topk / found.relu if "relu" in found else np.nan for name, found in at.items()}
    return at["recall"].reindex(columns=["d_sae", "seed", "k", "l0"]).assign(**ratio)


RECALL_RATIO, PRECISION_RATIO, LATENTS = 1.2, 0.8, 200  # of C27


def matched_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """The lines of `explained_ratios` whose L0 is matched, for every n and k at which it is in all seeds."""
    found = explained_ratios(rows).dropna(subset=["recall", "precision"])
    return found.groupby(["d_sae", "k"]).filter(lambda cell: cell.seed.nunique() == rows.seed.nunique())


def matched_latents(rows: pd.DataFrame, matched: pd.DataFrame) -> pd.Series:
    """Latents explained per architecture and seed, of the runs that are compared at a matched L0: TopK's own, and the
    ReLU runs next to it in L0 on either side, between which ReLU is interpolated."""
    used = []
    for (n, seed), points in matched.groupby(["d_sae", "seed"]):
        cell = rows[(rows.d_sae == n) & (rows.seed == seed) & (rows.dead <= COLLAPSED)]
        topk, relu = (cell[cell.architecture == name] for name in ("topk", "relu"))
        below = {relu.l0[relu.l0 <= l0].idxmax() for l0 in points.l0}
        above = {relu.l0[relu.l0 >= l0].idxmin() for l0 in points.l0}
        used += [*topk.index[topk.sparsity.isin(points.k)], *below, *above]
    every = pd.MultiIndex.from_product([("topk", "relu"), sorted(rows.seed.unique())], names=["architecture", "seed"])
    return rows.loc[sorted(set(used))].groupby(["architecture", "seed"]).latents.sum().reindex(every, fill_value=0)


def topk_is_caught_better(rows: pd.DataFrame) -> Evidence:
    """C27: means over matched points of recall TopK / recall ReLU and of the same for precision, per seed."""
    matched = matched_ratios(rows)
    expected = (rows.architecture == "topk") & rows.d_sae.isin(rows.d_sae[rows.architecture == "relu"])
    if matched.empty or len(matched) < 0.5 * expected.sum():
        note = f"only {len(matched)} TopK runs lie inside the L0 range of live ReLU runs in every seed"
        return Evidence("void", *NOTHING, note)
    per_seed = matched_latents(rows, matched).min()
    if per_seed < LATENTS:
        note = f"only {per_seed} latents of an architecture in a seed were explained at a matched L0"
        return Evidence("void", *NOTHING, note)
    recall, precision = (mean_interval(matched.groupby("seed")[name].mean()) for name in ("recall", "precision"))
    outcome = both(
        judge(*(value - RECALL_RATIO for value in recall)), judge(*(value - PRECISION_RATIO for value in precision))
    )
    return Evidence(
        outcome,
        *recall,
        f"recall is {recall[0]:.2f} times that of ReLU, precision {precision[0]:.2f} times [{precision[1]:.2f}, "
        f"{precision[2]:.2f}], at {len(matched)} matched points; at least {per_seed} latents of either in each seed, "
        "all of runs matched in L0",
    )


ENOUGH = 5  # sparse latents behind the mean F1 of a run


def f1_trends(rows: pd.DataFrame, suffix: str = "") -> pd.DataFrame:
    """Slopes of F1 on log2 n and on log2 k, one line per seed: least squares of F1 on both, over the TopK runs with
    ENOUGH sparse latents, at the n and k that have them in every seed. `suffix`: "_untrained" for the same of the
    untrained SAEs."""
    seeds = rows.seed.nunique()
    rows = rows[(rows.architecture == "topk") & (rows.latents_sparse >= ENOUGH)].dropna(subset=f"n2g_f1_sparse{suffix}")
    rows = rows.groupby(["d_sae", "sparsity"]).filter(lambda cell: cell.seed.nunique() == seeds)
    slopes = {}
    for seed, cell in rows.groupby("seed"):
        design = np.column_stack([np.ones(len(cell)), np.log2(cell.d_sae), np.log2(cell.sparsity)])
        if np.linalg.matrix_rank(design) < 3:
            raise NoEvidence("trends in n and in k need at least two of each")
        f1 = cell[f"n2g_f1_sparse{suffix}"].to_numpy(dtype=float)
        slopes[seed] = np.linalg.lstsq(design, f1, rcond=None)[0][1:]
    return pd.DataFrame(slopes, index=["n", "k"]).T


def f1_follows_n_and_k(rows: pd.DataFrame) -> Evidence:
    """C28: the slope on log2 n above 0 and the slope on log2 k below 0, each with its interval."""
    topk = rows[rows.architecture == "topk"]
    if (topk.latents_sparse < ENOUGH).mean() > 0.5:
        return Evidence("void", *NOTHING, f"most runs have fewer than {ENOUGH} latents of at most 10 % density")
    trends, untrained = f1_trends(rows), f1_trends(rows, "_untrained").mean()
    in_n, in_k = mean_interval(trends.n), mean_interval(-trends.k)
    return Evidence(
        both(judge(*in_n), judge(*in_k)),
        *in_n,
        f"F1 changes by {in_n[0]:+.3f} when n doubles and by {-in_k[0]:+.3f} [{-in_k[2]:+.3f}, {-in_k[1]:+.3f}] when k "
        f"doubles; before training by {untrained.n:+.3f} and {untrained.k:+.3f}",
    )


def simulation_beats_bigrams(rows: pd.DataFrame) -> Evidence:
    """C29: rise in cross-entropy with bigrams minus that with simulated latents, mean over dictionaries per seed."""
    if (rows.delta_ce_sae >= rows.delta_ce_bigram).all():
        return Evidence("void", *NOTHING, "bigrams beat even the autoencoders' reconstructions from true latents")
    gain = rows.delta_ce_bigram - rows.delta_ce
    mean, low, high = mean_interval(gain.groupby(rows.seed).mean())
    outcome = judge(mean, low, high)
    if outcome == "replicated" and gain.groupby([rows.d_sae, rows.sparsity]).mean().min() <= 0:
        outcome = "partly"
    return Evidence(
        outcome,
        mean,
        low,
        high,
        f"the loss rises by {rows.delta_ce.mean():.2f} nats with simulated latents, by "
        f"{rows.delta_ce_untrained.mean():.2f} with those of untrained autoencoders and by "
        f"{rows.delta_ce_bigram.mean():.2f} with bigrams; simulation is better than these in "
        f"{100 * (gain > 0).mean():.0f} % of the autoencoders. Each token's mean activation: "
        f"{rows.delta_ce_lookup.mean():.2f}. First tokens kept: {rows.delta_ce_first_kept.mean():.2f} simulated, "
        f"{rows.delta_ce_lookup_first_kept.mean():.2f} with means",
    )


STUDIES = (EXPLAINED, SIMULATION)

FIGURES = {
    "explanations-topk-relu": (EXPLAINED, "explanations.recall_and_precision", lambda rows: (rows,)),
    "explanations-f1": (EXPLAINED, "explanations.f1", lambda rows: (rows,)),
    "explanations-downstream": (SIMULATION, "explanations.downstream", lambda rows: (rows,)),
}


CLAIMS = (
    Claim(
        id="gao2024-C27",
        statement=(
            "Simple pattern explanations (N2G) catch more of the activations of TopK's latents than of ReLU's, at "
            "little loss of precision."
        ),
        rule=(
            "Over 200 latents of each architecture in each seed at equal n and L0 (ReLU interpolated in log-log, as "
            "C1), recall of the explanations for TopK more than 1.2 times that for ReLU, and precision more than 0.8 "
            "times, each with its interval. Only runs matched in L0 count: TopK runs whose L0 lies in every seed "
            "inside the range of ReLU runs with at most 50 % dead latents, and the ReLU runs next to them. Void if "
            "fewer than half of the TopK runs are matched, or the matched runs have fewer than 200 explained latents."
        ),
        published="recall above 1.5 times, precision above 0.9 times that of ReLU (Fig. 24); figure number uncertain",
        statistic="recall TopK / recall ReLU, mean over matched L0",
        study=EXPLAINED,
        test=topk_is_caught_better,
    ),
    Claim(
        id="gao2024-C28",
        statement="Latents are easier to explain by simple patterns (N2G) with more latents and fewer active ones.",
        rule=(
            "Over a grid of n and k, without the latents active on more than 10 % of tokens, F1 of the explanations "
            "rises with n and falls with k: slopes on log2 n and on log2 k, each with its interval, over the n and k "
            "at which every seed has at least 5 latents left. Void if most autoencoders have fewer."
        ),
        published=(
            "larger n and smaller k easier; n = 2,048 with k = 512 trivially easy because dense (Fig. 25); from "
            "memory, figure number uncertain"
        ),
        statistic="change of F1 when n doubles",
        study=EXPLAINED,
        test=f1_follows_n_and_k,
    ),
    Claim(
        id="gao2024-C29",
        statement=(
            "Reconstructions from simulated latents, as their pattern explanations (N2G) predict them, serve the "
            "language model better than a bigram model's predictions."
        ),
        rule=(
            "Rise in the language model's cross-entropy lower when all latents are replaced by their simulations than "
            "when a bigram model stands in, with its interval and for each dictionary. Void if bigrams serve better "
            "even than the true latents of every dictionary."
        ),
        published="better than bigrams on GPT-2 (Fig. 7); details from memory",
        statistic="rise in cross-entropy with bigrams - rise with simulated latents",
        study=SIMULATION,
        test=simulation_beats_bigrams,
    ),
)
