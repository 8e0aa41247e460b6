"""Scaling and evaluating sparse autoencoders. Leo Gao, Tom Dupre la Tour, Henk Tillman, Gabriel Goh, Rajan Troll,
Alec Radford, Ilya Sutskever, Jan Leike, Jeffrey Wu. arXiv:2406.04093 (2024).

Claim:    keeping the k largest latents (TopK) reconstructs better than ReLU with an L1 penalty at the same number of
          active latents, the gap grows with the dictionary, and transpose initialisation with AuxK keeps latents alive.
Command:  replicate run gao2024 --preset cpu
Subject:  pygpt-2m (`cpu`), pygpt-7m (`gpu`), GPT-2 small on OpenWebText (`paper`).
Differs:  models of 2 to 7 million parameters instead of GPT-2 small and GPT-4; Python source instead of an undisclosed
          corpus; 10^6 to 4 x 10^7 tokens instead of 10^10 and more, and higher learning rates to match; batches of
          1,024 to 4,096 tokens instead of 131,072; no weight averaging; no resampling for the ReLU baseline; the
          encoder starts at the scale that fits the data, for both architectures.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd

from replication.activations import LanguageModelActivations
from replication.claims import Claim, Evidence, NoEvidence, both, interpolate_loglog, judge, mean_interval
from replication.corpora import HubDataset, PythonSource
from replication.evaluate.reconstruction import reconstruction
from replication.results import Study
from replication.store import trained
from replication.train import Run

KEY = "gao2024"
TITLE = "Scaling and evaluating sparse autoencoders"
SEEDS = (0, 1, 2)
NOTHING = (float("nan"),) * 3  # statistic and interval of a void claim
DYING = 0.01  # below this share of dead latents there is nothing to keep alive

# ---------------------------------------------------------------------------------------------------------------- runs

SOURCES = {
    "smoke": LanguageModelActivations(
        "pygpt-0.5m", "blocks.1.hook_resid_pre", PythonSource(max_files=60), tokens=2**14, heldout_tokens=2**11
    ),
    "cpu": LanguageModelActivations(
        "pygpt-2m", "blocks.2.hook_resid_post", PythonSource(), tokens=3 * 2**18, heldout_tokens=2**15
    ),
    "gpu": LanguageModelActivations(
        "pygpt-7m",
        "blocks.3.hook_resid_post",
        PythonSource(("stdlib", "site-packages")),
        tokens=42 * 10**6,
        heldout_tokens=2**18,
    ),
    # the hub's own parquet copy: a data set with a loading script does not load any more. What is stored fits on one
    # GPU, so that the paper's number of tokens means many epochs over it.
    "paper": LanguageModelActivations(
        "openai-community/gpt2",
        "blocks.8.hook_resid_post",
        HubDataset("Skylion007/openwebtext", revision="refs/convert/parquet", max_documents=100_000),
        tokens=5 * 10**7,
        heldout_tokens=2**20,
    ),
}
GRIDS = {  # dictionary sizes, k of TopK, lambda of ReLU, training tokens, tokens per batch
    "smoke": ((64, 128), (4, 8), (0.1, 0.4), 2**14, 512),
    "cpu": ((256, 1024), (4, 8, 16, 32), (0.06, 0.14, 0.28, 0.5), 3 * 2**18, 1024),
    "gpu": ((2**12, 2**15), (4, 8, 16, 32), (0.06, 0.14, 0.28, 0.5), 42 * 10**6, 4096),
    "paper": ((2**15, 2**17), (8, 16, 32, 64, 128), (1.7e-3, 3.1e-3, 5e-3, 1e-2, 1.7e-2), 64 * 10**8, 131072),
}


def learning_rate(architecture: str, d_sae: int, preset: str) -> float:
    """TopK: 2e-4 (n / 2^14)^(-1/2) (Gao et al. 2024, fig. 3), times a factor for runs far shorter than the paper's.

    ReLU: one rate for all sizes. Both factors come from a sweep by powers of two at the `cpu` size, each method at its
    own best rate; the log page has the numbers.
    """
    factor = {"smoke": 8, "cpu": 4, "gpu": 2, "paper": 1}[preset]
    if architecture == "topk":
        return factor * 2e-4 * (d_sae / 2**14) ** -0.5
    return {"smoke": 4e-3, "cpu": 4e-3, "gpu": 1e-3, "paper": 1e-4}[preset]


def _run(preset: str, architecture: str, d_sae: int, sparsity: float, seed: int, **changes) -> Run:
    *_, tokens, batch = GRIDS[preset]
    return Run(
        SOURCES[preset],
        architecture,
        d_sae,
        sparsity,
        tokens=tokens,
        batch=batch,
        lr=learning_rate(architecture, d_sae, preset),
        dead_after=min(tokens // 8, 10**7),
        # a penalty at full strength from the start kills most of ReLU's latents (the log page has the numbers)
        sparsity_warmup=tokens // 4 if architecture == "relu" else 0,
        normalisation="gao",
        seed=seed,
        data_seed=seed,
        **changes,
    )


def frontier_runs(preset: str) -> list[Run]:
    """Figure 2: TopK over k and ReLU over lambda, at two dictionary sizes."""
    sizes, ks, lambdas, *_ = GRIDS[preset]
    return [
        _run(preset, architecture, n, sparsity, seed)
        for seed, n in product(SEEDS, sizes)
        for architecture, sparsities in (("topk", ks), ("relu", lambdas))
        for sparsity in sparsities
    ]


def dead_latents_runs(preset: str) -> list[Run]:
    """Figure 15: transpose initialisation and AuxK, each on and off, at the largest dictionary and the smallest k."""
    sizes, ks, *_ = GRIDS[preset]
    return [
        _run(preset, "topk", max(sizes), min(ks), seed, tied_init=tied, options={} if aux else {"aux_coefficient": 0.0})
        for seed, tied, aux in product(SEEDS, (True, False), (True, False))
    ]


def measure(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Train each run, then measure it on held-out activations."""
    for one in trained(runs):
        heldout = one.run.source.heldout(str(one.mean.device))
        yield one.run, reconstruction(one, heldout) | one.log


FRONTIER = Study(KEY, "frontier", "Reconstruction error against sparsity", frontier_runs, measure)
DEAD_LATENTS = Study(KEY, "dead-latents", "What keeps latents alive", dead_latents_runs, measure)
STUDIES = (FRONTIER, DEAD_LATENTS)

PUBLISHED_FRONTIER = {"l0": (10, 100), "nmse": (0.4, 0.6), "label": "range of Fig. 2a (GPT-2 small, n = 32,768)"}
"""Read off the axes of Figure 2a; the text gives no numbers."""


FIGURES = {  # name -> (study, function of the figures module, what it takes from the study's table)
    "frontier": (FRONTIER, "frontier", lambda rows: (rows, PUBLISHED_FRONTIER)),
    "error-gap": (FRONTIER, "error_gap", lambda rows: (error_gap(rows),)),
    "training-curves": (FRONTIER, "training_curves", lambda rows: (rows,)),
    "dead-latents": (DEAD_LATENTS, "dead_latents", lambda rows: (rows,)),
}


# -------------------------------------------------------------------------------------------------------------- claims


COLLAPSED = 0.5  # a baseline with a larger share of dead latents proves nothing about the baseline


def error_gap(rows: pd.DataFrame) -> pd.DataFrame:
    """ln(NMSE of ReLU / NMSE of TopK) at each TopK run's L0, per dictionary size and seed; positive: TopK is better.

    ReLU is interpolated piecewise-linearly in ln NMSE against ln L0 and never extrapolated: outside its range of L0 the
    gap is NaN. Runs with more than COLLAPSED dead latents are left out.
    """
    parts = []
    for (n, seed), cell in rows[rows.dead <= COLLAPSED].groupby(["d_sae", "seed"]):
        topk, relu = (cell[cell.architecture == name].sort_values("l0") for name in ("topk", "relu"))
        at_topk = interpolate_loglog(relu.l0, relu.nmse, topk.l0) if len(relu) > 1 else np.nan
        gap = np.log(at_topk / topk.nmse.to_numpy())
        parts.append(topk[["l0"]].assign(d_sae=n, seed=seed, k=topk.sparsity, gap=gap))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["l0", "d_sae", "seed", "k", "gap"])


def late_gain(curve_tokens: list, curve_error: list) -> float:
    """Drop of ln(training error) over the last doubling of tokens: how far a run is from done."""
    before = interpolate_loglog(curve_tokens, curve_error, [curve_tokens[-1] / 2])[0]
    return float(np.log(before / curve_error[-1]))


def doubling_shift(rows: pd.DataFrame) -> float:
    """By how much one more doubling of tokens would change the gap, if the last one is a guide: late gain of TopK minus
    that of ReLU, means over runs. Negative: the gap would close."""
    gain = {
        name: np.mean([late_gain(*curve) for curve in zip(cell.curve_tokens, cell.curve_error, strict=True)])
        for name, cell in rows[rows.dead <= COLLAPSED].groupby("architecture")
    }
    return float(gain["topk"] - gain["relu"])


def _matched(rows: pd.DataFrame) -> pd.DataFrame | str:
    """The gap where L0 is matched, or the reason why the comparison is void."""
    gap = error_gap(rows)
    matched = gap.dropna()
    if len(matched) < 0.5 * rows[rows.architecture == "topk"].shape[0]:
        return f"only {len(matched)} TopK runs lie inside the L0 range of ReLU runs that did not collapse"
    shift = doubling_shift(rows)
    if 0 < matched.gap.mean() < -shift:
        return f"one more doubling of tokens would shift the gap by {shift:+.2f} and close it: ReLU is under-trained"
    return matched


def topk_beats_relu(rows: pd.DataFrame) -> Evidence:
    """C1: the share of matched points where TopK is better, and the mean gap over seeds."""
    matched = _matched(rows)
    if isinstance(matched, str):
        return Evidence("void", *NOTHING, matched)
    share = (matched.gap > 0).groupby(matched.seed).mean()
    mean, low, high = mean_interval(matched.groupby("seed").gap.mean())
    outcome = judge(mean, low, high)
    if outcome == "replicated" and share.min() < 0.8:
        outcome = "partly"
    return Evidence(
        outcome,
        mean,
        low,
        high,
        f"TopK has the lower NMSE at {100 * (matched.gap > 0).mean():.0f} % of the matched L0 points; one more "
        f"doubling of tokens would shift the gap by about {doubling_shift(rows):+.2f}",
    )


def gap_grows(rows: pd.DataFrame) -> Evidence:
    """C2: slope of the gap on ln n at fixed k, over the k that are matched at every size; one slope per seed."""
    matched = _matched(rows)
    if isinstance(matched, str):
        return Evidence("void", *NOTHING, matched)
    sizes = rows.d_sae.nunique()
    if sizes < 2:
        raise NoEvidence("a slope on ln n needs at least two dictionary sizes")
    complete = matched.groupby(["seed", "k"]).filter(lambda cell: len(cell) == sizes)
    if complete.empty:
        return Evidence("void", *NOTHING, "no k has a matched L0 at every dictionary size")
    slopes = [
        np.polyfit(np.log(cell.d_sae), cell.gap - cell.groupby("k").gap.transform("mean"), 1)[0]
        for _, cell in complete.groupby("seed")
    ]
    mean, low, high = mean_interval(slopes)
    ks = ", ".join(f"{k:g}" for k in sorted(complete.k.unique()))
    return Evidence(
        judge(mean, low, high), mean, low, high, f"the gap changes by {mean:+.3f} per unit of ln n, over k = {ks}"
    )


def _by_condition(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One line per seed, one column per (transpose initialisation?, AuxK?)."""
    table = rows.assign(auxk=rows.options == "()").pivot(index="seed", columns=["tied_init", "auxk"], values=column)
    if table.isna().any(axis=None) or table.shape[1] != 4:
        raise NoEvidence("the 2 x 2 of initialisation and AuxK is not complete for every seed")
    return table


def tied_init_helps(rows: pd.DataFrame) -> Evidence:
    """C13: independent minus transpose initialisation, for dead latents and for NMSE, with AuxK and without."""
    dead, nmse = (_by_condition(rows, column) for column in ("dead", "nmse"))
    if dead.to_numpy().max() < DYING:
        return Evidence("void", *NOTHING, "fewer than 1 % of latents die under any condition")
    gain = {aux: [table[False, aux] - table[True, aux] for table in (dead, nmse)] for aux in (True, False)}
    outcome = both(*(both(*(judge(*mean_interval(values)) for values in pair)) for pair in gain.values()))
    (dead_on, nmse_on), (dead_off, nmse_off) = gain.values()
    return Evidence(
        outcome,
        *mean_interval((nmse_on + nmse_off) / 2),
        f"transpose initialisation lowers NMSE by {nmse_on.mean():.4f} with AuxK and by {nmse_off.mean():.4f} without, "
        f"the dead share by {100 * dead_on.mean():.2f} and {100 * dead_off.mean():.1f} points",
    )


def auxk_helps(rows: pd.DataFrame) -> Evidence:
    """C14: dead share without minus with AuxK, for both initialisations."""
    dead = _by_condition(rows, "dead")
    if dead.xs(False, axis=1, level="auxk").to_numpy().max() < DYING:
        return Evidence("void", *NOTHING, "fewer than 1 % of latents die without AuxK: there is nothing to revive")
    revived = {tied: dead[tied, False] - dead[tied, True] for tied in (True, False)}
    outcome = both(*(judge(*mean_interval(values)) for values in revived.values()))
    return Evidence(
        outcome,
        *mean_interval((revived[True] + revived[False]) / 2),
        f"AuxK lowers the dead share by {100 * revived[True].mean():.1f} points with transpose initialisation and by "
        f"{100 * revived[False].mean():.1f} points with an independent one",
    )


def both_remedies_help(rows: pd.DataFrame) -> Evidence:
    """C15: dead share with neither remedy minus five times that with both."""
    dead = _by_condition(rows, "dead")
    neither, together = dead[False, False], dead[True, True]
    if neither.max() < DYING:
        return Evidence("void", *NOTHING, "fewer than 1 % of latents die with neither remedy")
    mean, low, high = mean_interval(neither - 5 * together)
    return Evidence(
        judge(mean, low, high),
        mean,
        low,
        high,
        f"{100 * neither.mean():.1f} % of latents die with neither remedy, {100 * together.mean():.1f} % with both",
    )


NO_PAGE = "no page of this book measures it yet"

CLAIMS = (
    Claim(
        id="gao2024-C1",
        statement="At equal L0, TopK reconstructs better than ReLU with an L1 penalty.",
        rule=(
            "NMSE of TopK below NMSE of ReLU (interpolated in log-log) at 80 % or more of the matched L0 points in "
            "each seed, and the mean log-ratio above 0 with its interval. Void if fewer than half of the L0 points are "
            "matched by ReLU runs with at most 50 % dead latents, or if one more doubling of tokens would close the "
            "gap."
        ),
        published="TopK below ReLU at every L0 shown (Fig. 2a: GPT-2 small, n = 32,768)",
        statistic="mean of ln(NMSE ReLU / NMSE TopK)",
        study=FRONTIER,
        test=topk_beats_relu,
    ),
    Claim(
        id="gao2024-C2",
        statement="The gap between TopK and ReLU grows with the number of latents.",
        rule="Slope of ln(NMSE ReLU / NMSE TopK) on ln n at fixed L0 above 0 with its interval. Void as C1.",
        published="TopK's exponent is the steeper one (Fig. 2b); no number in the text",
        statistic="slope of ln(NMSE ReLU / NMSE TopK) on ln n",
        study=FRONTIER,
        test=gap_grows,
    ),
    Claim(
        id="gao2024-C3",
        statement="At equal L0, TopK reconstructs about as well as a gated autoencoder and better than ProLU.",
        rule=(
            "At 80 % or more of the matched L0 points (interpolated in log-log, as C1), NMSE of TopK and of the gated "
            "autoencoder differ by less than 5 %, and NMSE of ProLU is above that of TopK."
        ),
        published=(
            "TopK comparable to Gated and below ProLU (Fig. 2a: GPT-2 small, n = 32,768); read off the figure and its "
            "caption"
        ),
        statistic="NMSE Gated / NMSE TopK and NMSE ProLU / NMSE TopK at equal L0",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C4",
        statement="At equal reconstruction error, TopK harms the language model's predictions less than other methods.",
        rule=(
            "In a regression of the rise in the language model's cross-entropy, when reconstructions replace the "
            "activations, on NMSE and the method, TopK's coefficient below 0 with its interval."
        ),
        published="at equal NMSE, TopK has the lower downstream loss (Fig. 5b: L0 = 128); from memory",
        statistic="coefficient of TopK on the rise in cross-entropy, at equal NMSE",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C5",
        statement=(
            "At convergence, the error falls with the number of latents as a power law towards a floor above zero."
        ),
        rule=(
            "Of two fits to NMSE against n at fixed k, a power law with a floor and one without, the first has the "
            "lower AICc (an error of fit that charges for parameters), by more than 2."
        ),
        published="an irreducible constant clearly improves the fits of error on latents and of error on compute",
        statistic="AICc without floor - AICc with floor",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C6",
        statement="The error falls faster with the number of latents where more latents are active per token.",
        rule=(
            "In the joint law NMSE = exp(alpha + beta_k ln k + beta_n ln n + gamma ln k ln n) + exp(zeta + eta ln k), "
            "fitted over n and k, gamma below 0 with its interval."
        ),
        published="gamma = -0.042 (Fig. 1 right: GPT-4)",
        statistic="gamma",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C7",
        statement="The floor of the error is lower where more latents are active per token.",
        rule="In the joint law of C6, eta below 0 with its interval.",
        published="eta = -0.085 (Fig. 1 right: GPT-4)",
        statistic="eta",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C8",
        statement="The largest converging learning rate goes as one over the square root of the number of latents.",
        rule=(
            "Slope of the logarithm of the largest converging learning rate on ln n, over a grid of rates by factors "
            "of two and five or more n: its interval contains -0.5 and excludes 0."
        ),
        published="the learning rate goes as n^(-1/2) (Fig. 3)",
        statistic="slope of ln(largest converging learning rate) on ln n",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C9",
        statement="The tokens needed for convergence grow more slowly than the number of latents.",
        rule=("Exponent in n of the tokens after which NMSE is within 1 % of its final value between 0.4 and 0.8."),
        published="n^0.6 on GPT-2 small, n^0.65 on GPT-4 (Fig. 11); the paper's threshold of convergence is not known",
        statistic="slope of ln(tokens to convergence) on ln n",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C10",
        statement="With the best number of latents for each compute, the error falls with compute as a power law.",
        rule=(
            "Along the lower envelope over n of NMSE at equal training FLOPs, a straight line of ln(NMSE - floor) on "
            "ln FLOPs has an R2 above 0.98."
        ),
        published=(
            "NMSE = 0.09 + 0.056 C^(-0.084), with C in units of GPT-4's pre-training compute (Fig. 1 left); range of "
            "C, about 1e-9 to 1e-5, read off the axes"
        ),
        statistic="R2 of ln(NMSE - floor) on ln FLOPs",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C11",
        statement=(
            "The larger the language model, the more latents it takes to reach the same error, and the more slowly the "
            "error falls with their number."
        ),
        rule=(
            "Over three language models at one k, the n that reaches an NMSE of 0.3 rises with each step in model "
            "size, and the slope of ln NMSE on ln n becomes shallower."
        ),
        published="both hold for GPT-4's family at k = 32 (Fig. 4); no exponents in the text",
        statistic="n at NMSE 0.3 and slope of ln NMSE on ln n, per language model",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C12",
        statement="On Gaussian noise, the error falls far more slowly with the number of latents than on activations.",
        rule=(
            "Slope of ln NMSE on ln n for independent standard normal data, in absolute value, below half of that for "
            "a language model's activations, at the same width, n and k."
        ),
        published=(
            "exponent about -0.04 on 768 Gaussian dimensions at k = 32 (Fig. 14) against about -0.26 on GPT-2; from "
            "memory, figure number uncertain"
        ),
        statistic="slope on Gaussian data / slope on activations",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C13",
        statement="Starting the encoder as the decoder's transpose reduces dead latents and error.",
        rule=(
            "Dead share and NMSE both lower than with an independent initialisation, each with its interval, with AuxK "
            "and without. Void if fewer than 1 % of latents die under any condition."
        ),
        published="clearly better MSE (Fig. 16)",
        statistic="NMSE independent - NMSE transpose, mean over AuxK on and off",
        study=DEAD_LATENTS,
        test=tied_init_helps,
    ),
    Claim(
        id="gao2024-C14",
        statement="AuxK reduces dead latents.",
        rule=(
            "Dead share lower with AuxK (coefficient 1/32) than without, with its interval, under both "
            "initialisations. Void if fewer than 1 % of latents die without it."
        ),
        published="up to 90 % dead with neither remedy, 7 % at 16 million latents with both",
        statistic="dead share without AuxK - with AuxK, mean of both initialisations",
        study=DEAD_LATENTS,
        test=auxk_helps,
    ),
    Claim(
        id="gao2024-C15",
        statement="With transpose initialisation and AuxK together few latents die; with neither, many do.",
        rule=(
            "Dead share with neither remedy more than 5 times the dead share with both: their difference, the second "
            "taken 5 times, above 0 with its interval. Void if fewer than 1 % of latents die with neither."
        ),
        published="up to 90 % dead with neither remedy (Fig. 15), 7 % at 16 million latents with both",
        statistic="dead share with neither - 5 x dead share with both",
        study=DEAD_LATENTS,
        test=both_remedies_help,
    ),
    Claim(
        id="gao2024-C16",
        statement=(
            "With transpose initialisation, rescaling the encoder at the start so that reconstructions have the norm "
            "of the input makes no difference."
        ),
        rule="NMSE with and without the rescaling, both with transpose initialisation, differ by less than 1 %.",
        published=(
            "no effect with transpose initialisation, slightly harmful with an independent one (Fig. 16); from memory"
        ),
        statistic="relative difference of NMSE with and without the rescaling",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C17",
        statement="The encoder's bias makes no difference to the error at convergence.",
        rule="At convergence, NMSE with and without the encoder's bias differ by less than 1 %.",
        published="error at convergence unchanged, convergence slightly slower without it (Fig. 17); from memory",
        statistic="relative difference of NMSE with and without the encoder's bias",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C18",
        statement="Keeping the decoder's directions at unit norm during training lowers the error of TopK.",
        rule="NMSE lower with renormalisation of the decoder than without, with its interval.",
        published="normalising the decoder helps the error (Fig. 18); from memory",
        statistic="NMSE without - NMSE with renormalisation",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C19",
        statement="Adam's eps has to be tiny, else the result depends on the scale of the loss.",
        rule=(
            "Over eps = 6e-10, 1e-8 and 1e-5, multiplying the loss by 1e-3 changes NMSE by more than 1 % at large eps."
        ),
        published="eps = 6.25e-10; that the default of 1e-8 breaks the invariance to the loss's scale is from memory",
        statistic="relative change of NMSE when the loss is multiplied by 1e-3, per eps",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C20",
        statement="The batch size makes no difference to the error at convergence once the learning rate is retuned.",
        rule=(
            "At convergence, a batch four times as large, with its learning rate retuned, changes NMSE by less than 1 "
            "%."
        ),
        published="hardly any dependence on batch size at convergence (Fig. 12: GPT-2); from memory",
        statistic="relative change of NMSE with a batch four times as large",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C21",
        statement="ReLU with an L1 penalty makes its latents systematically too small, and TopK does not.",
        rule=(
            "With the decoder and each token's set of active latents held fixed, the latents are fitted again to the "
            "input. The ratio of their sum after to before is above 1.05 for ReLU and between 0.95 and 1.05 for TopK, "
            "and the mean absolute change is smaller for TopK."
        ),
        published=(
            "best activations systematically larger for ReLU, no bias and smaller changes for TopK (section 5.1, Fig. "
            "8a)"
        ),
        statistic="sum of latents after / before the fit, per architecture",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C22",
        statement="Undoing the shrinkage of ReLU's latents closes only part of its gap to TopK.",
        rule=(
            "At equal L0, below a quarter of the width, the fall of ReLU's NMSE when its latents are fitted again "
            "(C21), as a share of its gap to TopK before, lies between 0 and 1."
        ),
        published="both architectures improve, and the gap closes only in part (section 5.1, Fig. 8b); from memory",
        statistic="share of the gap in NMSE that the fit closes",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C23",
        statement=(
            "An autoencoder trained with TopK gets worse when far more latents are kept at test time than in training."
        ),
        rule=(
            "With k' latents kept at test time instead of k, NMSE is smallest at a k' above k and at most 2k, and NMSE "
            "at 4k is above NMSE at k."
        ),
        published=(
            "the error improves up to k, then gets strongly worse (section 5.3, Fig. 10); that it improves slightly "
            "beyond k is from memory"
        ),
        statistic="k' of the smallest NMSE / k, and NMSE at 4k / NMSE at k",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C24",
        statement=(
            "Training on two values of k at once (Multi-TopK) gives codes that improve steadily with the number of "
            "latents kept at test time, at a small cost at k itself."
        ),
        rule=(
            "For the loss L(k) + L(4k) / 8, NMSE does not rise by more than 2 % as the number of latents kept grows to "
            "4k, and NMSE at k is within 20 % of that of TopK trained at k."
        ),
        published=(
            "progressive at every number of latents kept (section 5.3, Fig. 10); the slightly larger error at k is "
            "from memory"
        ),
        statistic="largest relative rise of NMSE up to 4k, and NMSE at k / NMSE of TopK",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C25",
        statement=(
            "Replacing TopK at test time by one threshold for all latents costs error above the trained k, but hardly "
            "any after training with Multi-TopK."
        ),
        rule=(
            "NMSE with the threshold (JumpReLU) over NMSE with TopK, at a mean of 2k and of 4k active latents, is "
            "above 1.1 after training with TopK and between 0.9 and 1.15 after training with Multi-TopK."
        ),
        published=(
            "worse than TopK above the trained k; the two curves nearly coincide for Multi-TopK (section 5.3, Fig. "
            "10); from memory"
        ),
        statistic="NMSE JumpReLU / NMSE TopK at L0 = 2k and 4k",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C26",
        statement=(
            "With more latents, single latents predict known features of text better, and a middle number of active "
            "latents does best."
        ),
        rule=(
            "Over 10 to 30 classification tasks, with probes scored on held-out texts, the rank correlation (Spearman) "
            "of mean probe loss with n is below -0.8, and the lowest probe loss lies at a k inside the tested range."
        ),
        published=(
            "larger n better, middle k best, probe loss from 0.52 to 0.49 (Fig. 6: GPT-2); figure number uncertain"
        ),
        statistic="Spearman correlation of probe loss with n, and the k of the lowest probe loss",
        untested=(
            "no page of this book measures it yet; the tasks are English texts and this book's own language models "
            "are trained on Python source, so other tasks are needed first"
        ),
    ),
    Claim(
        id="gao2024-C27",
        statement=(
            "Simple pattern explanations (N2G) catch more of the activations of TopK's latents than of ReLU's, at "
            "little loss of precision."
        ),
        rule=(
            "Over 200 latents of each architecture at equal n and L0, recall of the explanations for TopK more than "
            "1.2 times that for ReLU, and precision more than 0.8 times."
        ),
        published="recall above 1.5 times, precision above 0.9 times that of ReLU (Fig. 24); figure number uncertain",
        statistic="recall TopK / recall ReLU and precision TopK / precision ReLU",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C28",
        statement="Latents are easier to explain by simple patterns (N2G) with more latents and fewer active ones.",
        rule=(
            "Over a grid of n and k, without the latents active on more than 10 % of tokens, F1 of the explanations "
            "rises with n and falls with k."
        ),
        published=(
            "larger n and smaller k easier; n = 2,048 with k = 512 trivially easy because dense (Fig. 25); from "
            "memory, figure number uncertain"
        ),
        statistic="trend of F1 in n and in k",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C29",
        statement=(
            "Reconstructions from simulated latents, as their pattern explanations (N2G) predict them, serve the "
            "language model better than a bigram model's predictions."
        ),
        rule=(
            "Rise in the language model's cross-entropy lower when all latents are replaced by their simulations than "
            "when a bigram model stands in."
        ),
        published="better than bigrams on GPT-2 (Fig. 7); details from memory",
        statistic="rise in cross-entropy with bigrams - rise with simulated latents",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C30",
        statement=(
            "Removing one latent changes fewer of the language model's output logits than removing one channel of the "
            "residual stream."
        ),
        rule=(
            "Sparsity of the effect on later logits, (L1 norm / L2 norm)^2 per logit, so that smaller is sparser: for "
            "latents below half of that for channels, and for channels between 0.5 and 0.7. Both ways to remove a "
            "latent, from the true activation and from its reconstruction, are reported."
        ),
        published="10 to 14 % for latents, 60 % for channels of the residual stream (GPT-2)",
        statistic="sparsity of effects, latents / channels",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C31",
        statement=(
            "The effects of single latents become sparser as more are active per token, until their number comes close "
            "to the width of the activations."
        ),
        rule=(
            "With k up to 0.7 times the width, the sparsity of C30 (smaller is sparser) has its minimum inside the "
            "range."
        ),
        published="larger k gives sparser effects until k = 512, where it reverses (GPT-2, width 768)",
        statistic="k at the minimum of the sparsity of effects / width",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C32",
        statement="As the number of active latents nears the width of the activations, solutions turn dense.",
        rule=(
            "The mean density (share of tokens on which a latent is active) of the d densest latents, d being the "
            "width, jumps where k is 0.5 d or more. The size of a jump has to be fixed before it is measured."
        ),
        published=(
            "dense from k of about 512, strongly so at k = 2,048 with n = 32,768 (Fig. 26 to 31); from memory, numbers "
            "uncertain"
        ),
        statistic="mean density of the d densest latents, as a function of k / d",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C33",
        statement="The share of loss recovered against zero ablation is too lenient a measure of fidelity.",
        rule=(
            "For one autoencoder, the share of loss recovered against zero ablation is above 95 %, while its loss "
            "equals that of a language model trained with less than 50 % of the compute, read from checkpoints of that "
            "model."
        ),
        published="98.2 % by zero ablation, but the loss of 10 % of GPT-4's compute (16 million latents)",
        statistic="share of loss recovered, and equivalent share of compute",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C34",
        statement="Sparse kernels speed up training by a factor of up to six.",
        rule=(
            "With k / n below 1/100, a training step with dense products takes more than 1.5 times and less than 6 "
            "times as long as one with sparse kernels."
        ),
        published="up to 6 times; from memory",
        statistic="step time dense / step time sparse",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C35",
        statement=(
            "With the latents split over shards that each offer only a few candidates, nearly all of the exact top k "
            "are found."
        ),
        rule=(
            "With up to 8 shards, each of which offers c k / shards candidates with c from 2 to 4, more than 99.9 % of "
            "the latents of the exact top k are selected."
        ),
        published="c = 2 in the paper, from memory; c = 4 in the released code; no overlap is known",
        statistic="share of the exact top k that the sharded one selects",
        untested=NO_PAGE,
    ),
)
