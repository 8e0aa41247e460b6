"""Does it find the truth? top-AFA and eps_LBO on synthetic data whose dictionary is known (Z6, X1 to X4)."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy import stats

from replication import metrics, train
from replication.activations import ActivationSource, Lee
from replication.claims import Claim, Evidence, NoEvidence, both, judge, mean_interval
from replication.evaluate.norms import relative_gap
from replication.matching import correlations, matched_mean
from replication.papers.gao2024.frontier import late_gain
from replication.papers.topafa2025.grid import KEY, LAMBDA_TIMES_D
from replication.results import Study
from replication.sae import SAE
from replication.sae.base import unit_rows
from replication.sae.topafa import TopAFA
from replication.sae.topk import TopK
from replication.shapes import Float, Int, Tensor
from replication.store import trained
from replication.synthetic import random_dictionary
from replication.train import Run

ATOMS_OVER_D, ROWS_OVER_D = 4, 8  # true atoms and dictionary rows per input dimension
LONGER = 3  # times the steps of the other runs
QUANTILES = torch.linspace(0, 1, 21, dtype=torch.float64)
PLAIN = 24  # lambda d of the runs that depart from the paper's settings, and of the objective in every row


@dataclass(frozen=True)
class Superposition(ActivationSource):
    """x = codes @ atoms with more unit atoms than dimensions, no noise and no offset: the linear representation
    hypothesis taken at its word (Lee et al. 2025 assume z = W f).

    A sample draws m uniformly from 1 .. 2k - 1, so that on average k atoms are active and samples differ, and then m
    atoms with replacement (one that is drawn twice counts once); their codes are U(0.5, 1.5). Atoms are random
    directions, drawn by `seed`; the seed of `batches` draws samples alone.
    """

    width: int
    n_atoms: int
    k: int
    seed: int = 0
    heldout_samples: int = 8192

    def __post_init__(self):
        for name in ("width", "n_atoms", "k", "heldout_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if 2 * self.k - 1 > self.n_atoms:
            raise ValueError(f"2 k - 1 must be at most n_atoms={self.n_atoms}, got k={self.k}")

    @property
    def d_in(self) -> int:
        return self.width

    def atoms(self, device: str = "cpu") -> Float[Tensor, "n_atoms d_in"]:
        """The true dictionary."""
        return random_dictionary(self.n_atoms, self.width, torch.Generator().manual_seed(self.seed)).to(device)

    def batches(self, batch, tokens, seed, device="cpu"):
        generator, atoms = torch.Generator(device).manual_seed(seed), self.atoms(device)
        for _ in range(tokens // batch):
            drawn, values = self._draw(batch, generator)
            yield torch.nn.functional.embedding_bag(drawn, atoms, mode="sum", per_sample_weights=values)

    def heldout(self, device="cpu"):
        return self.heldout_codes(device) @ self.atoms(device)

    def heldout_codes(self, device: str = "cpu") -> Float[Tensor, "samples n_atoms"]:
        """The true codes of `heldout`."""
        generator = torch.Generator(device).manual_seed(2**32 - 1)  # only 32 bits count; no run has this seed
        drawn, values = self._draw(self.heldout_samples, generator)
        return values.new_zeros(len(drawn), self.n_atoms).scatter_add(1, drawn, values)

    def _draw(self, samples: int, generator: torch.Generator) -> tuple[Int[Tensor, "n most"], Float[Tensor, "n most"]]:
        """Atoms drawn for each sample and their codes, which are 0 beyond its m and for repetitions."""
        most, at = 2 * self.k - 1, {"generator": generator, "device": generator.device}
        drawn = torch.randint(self.n_atoms, (samples, most), **at)
        values = torch.rand(samples, most, **at) + 0.5
        beyond = torch.arange(most, device=generator.device) >= torch.randint(1, most + 1, (samples, 1), **at)
        again = (drawn.unsqueeze(2) == drawn.unsqueeze(1)).tril(-1).any(-1)
        return drawn, values.masked_fill(beyond | again, 0)


GRIDS = {  # widths; k of the truth; steps per dictionary row; batch; learning rate; lambda d; seeds
    "smoke": ((8,), (2,), 1, 32, 2e-3, (24, 48), 2),
    "cpu": ((64,), (4, 8), 6, 64, 3e-3, (24, 48), 3),
    "gpu": ((64, 128, 256), (4, 8, 16), 20, 256, 1e-3, LAMBDA_TIMES_D, 5),
    "paper": ((768,), (4, 8, 16), 4, 4096, 3e-4, LAMBDA_TIMES_D, 5),
}
VARIANTS = {  # one departure each from the paper's settings of top-AFA: name -> options, normalisation, times the steps
    "no norm loss": ({"afa_loss": False}, "lee", 1),
    "first to exceed": ({"rule": "first-to-exceed"}, "lee", 1),
    "encoder x4": ({"init_scale": 4.0}, "lee", 1),
    "raw input": ({}, "none", 1),
    "longer": ({}, "lee", LONGER),
}
AS_PUBLISHED = ("paper", "longer")


def topk_ks(d_in: int, k: int) -> list[int]:
    """k of TopK: half the true one to four times that, then close to d and beyond it."""
    return sorted({max(k // 2, 1), k, 2 * k, 4 * k, round(0.75 * d_in), round(1.5 * d_in)})


def make_run(preset: str, d_in: int, k: int, architecture: str, sparsity: float, seed: int, variant="paper") -> Run:
    """A run at a true k with the released code's Adam betas and window of dead latents (5 batches of 4,096)."""
    _, _, steps, batch, lr, *_ = GRIDS[preset]
    options, normalisation, times = VARIANTS.get(variant, ({}, "lee", 1))
    d_sae = ROWS_OVER_D * d_in
    return Run(
        source=Superposition(d_in, ATOMS_OVER_D * d_in, k, seed),
        architecture=architecture,
        d_sae=d_sae,
        sparsity=sparsity,
        tokens=times * steps * d_sae * batch,
        batch=batch,
        lr=lr,
        dead_after=20_480,
        beta2=0.99,
        normalisation=normalisation,
        seed=seed,
        data_seed=seed,
        options=options,
    )


REFERENCES = ("truth", "antipodal basis", "untrained TopK", "untrained top-AFA")


@dataclass(frozen=True)
class Reference:
    """A dictionary that nobody trained, measured like the others.

    "truth": the atoms with the true codes, as an SAE sees them after normalisation. "antipodal basis": the exact
    minimum of top-AFA's objective (`antipodal_basis`). "untrained ...": 8 d random rows at the start of a training.
    """

    source: Superposition
    kind: str
    seed: int = 0
    data_seed: int = 0

    def __post_init__(self):
        if self.kind not in REFERENCES:
            raise ValueError(f"kind must be one of {', '.join(REFERENCES)}, got {self.kind!r}")


def truth_runs(preset: str) -> list[Run | Reference]:
    """Every method at every true k; at `cpu` the larger k has one setting of TopK, the true k, and one of top-AFA."""
    widths, ks, *_, lambdas, seeds = GRIDS[preset]
    runs: list[Run | Reference] = []
    for seed, d_in, k in product(range(seeds), widths, ks):
        source = Superposition(d_in, ATOMS_OVER_D * d_in, k, seed)
        runs += [Reference(source, kind, seed, seed) for kind in REFERENCES]
        reduced = preset == "cpu" and k > ks[0]
        ks_of_topk = (k,) if reduced else topk_ks(d_in, k)
        runs += [make_run(preset, d_in, k, "topk", one, seed) for one in ks_of_topk]
        runs += [make_run(preset, d_in, k, "topafa", one / d_in, seed) for one in lambdas[: 1 if reduced else None]]
        runs += [make_run(preset, d_in, k, "topafa", PLAIN / d_in, seed, one) for one in VARIANTS if not reduced]
    return runs


def antipodal_basis(d_in: int, generator: torch.Generator) -> TopAFA:
    """W_dec = {+u_i, -u_i} for a random orthonormal basis u, W_enc its transpose, no bias: 2 d rows.

    ReLU(x . u_i) u_i - ReLU(-x . u_i) u_i = (x . u_i) u_i: recon = x and |latents| = |x| for every x, so that every
    term of the objective and eps_LBO are 0, with d active latents, whatever made the data.
    """
    sae = TopAFA(d_in, 2 * d_in, PLAIN / d_in, normalisation="lee")
    basis = torch.linalg.qr(torch.randn(d_in, d_in, dtype=torch.float64, generator=generator)).Q
    rows = torch.cat([basis, -basis])
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    return sae


def as_seen(
    atoms: Float[Tensor, "n_atoms d_in"], codes: Float[Tensor, "n n_atoms"]
) -> tuple[Float[Tensor, "n_atoms d_in"], Float[Tensor, "n n_atoms"]]:
    """Atoms and codes of the truth after the paper's normalisation of x = codes @ atoms.

    It takes the mean over coordinates from x, that is, from each atom, and divides by the token's deviation s:
    (x - mean x) / s = sum_i (codes_i |a_i - mean a_i| / s) (a_i - mean a_i) / |a_i - mean a_i|.
    """
    centred = atoms - atoms.mean(-1, keepdim=True)
    deviation = (codes @ atoms).std(-1, keepdim=True) + 1e-5
    return unit_rows(centred), codes * centred.norm(dim=-1) / deviation


def recovery(atoms: Float[Tensor, "n_atoms d_in"], rows: Float[Tensor, "h d_in"]) -> dict[str, float]:
    """mcc: mean over atoms of the highest cosine among all rows; mcc_matched: the same, no row used twice (Hungarian;
    an atom without a row counts 0).

    With sign, because codes are not negative; cosines of centred vectors, because a normalised input has no mean over
    coordinates. 1 = every atom is there; chance is far above 0, see `mcc_chance`.
    """
    cosines = correlations(atoms.mT, rows.mT)
    covered = min(len(rows) / len(atoms), 1)
    return {"mcc": cosines.amax(-1).mean().item(), "mcc_matched": covered * matched_mean(cosines).item()}


def lowest_cosines(rows: Float[Tensor, "alive d_in"]) -> Float[Tensor, " alive"]:
    """min_j cos(w_i, w_j) of every row: -1 where a row has its opposite in the dictionary."""
    unit = unit_rows(rows.double())
    return (unit @ unit.T).fill_diagonal_(torch.inf).amin(-1)


def afa_objective(
    x: Float[Tensor, "n d_in"], recon: Float[Tensor, "n d_in"], latents: Float[Tensor, "n h"]
) -> Float[Tensor, ""]:
    """E|x - recon|^2 / d + lambda E(|latents| - |x|)^2 at lambda d = PLAIN: what top-AFA minimises but for AuxK."""
    mismatch = (latents.norm(dim=-1) - x.norm(dim=-1)).square().mean()
    return (x - recon).square().mean() + PLAIN / x.shape[-1] * mismatch


@torch.no_grad()
def describe(
    source: Superposition,
    x: Float[Tensor, "n d_in"],
    W_dec: Float[Tensor, "h d_in"],
    b_dec: Float[Tensor, " d_in"],
    latents: Float[Tensor, "n h"],
    positive: Float[Tensor, ""] | float,
) -> dict:
    """What is measured on a dictionary and its codes of the held-out samples; `positive` latents stood for selection.

    eps_LBO is that of the released code: rows' norms folded into the latents, b_dec as one more, always active feature.
    `norm_ratio` is |f| over |x - b_dec|, which the selection compares, `norm_to_x` over |x|, which the loss compares.
    """
    codes, atoms = source.heldout_codes(str(x.device)), source.atoms(str(x.device))
    recon = latents @ W_dec + b_dec
    f_norm = (latents * W_dec.norm(dim=-1)).norm(dim=-1)
    active, true = (latents != 0).sum(-1).double(), (codes != 0).sum(-1).double()
    alive = (latents != 0).any(0)
    lowest = lowest_cosines(W_dec[alive])
    gap = relative_gap(x.norm(dim=-1), (f_norm.square() + b_dec.square().sum()).sqrt()).median().item()
    counts = true.unique()
    numbers = {
        "l0": active.mean(),
        "true_l0": true.mean(),
        "l0_correlation": correlations(true[:, None], active[:, None]).squeeze(),
        "l0_over_d": active.mean() / source.d_in,
        "selected": active.mean() / positive,
        "nmse": metrics.nmse(x, recon, x.mean(0)),
        "objective": afa_objective(x, recon, latents),
        "norm_ratio": (f_norm / (x - b_dec).norm(dim=-1)).median(),
        "norm_to_x": (f_norm / x.norm(dim=-1)).median(),
        "bias_to_x": b_dec.norm() / x.norm(dim=-1).median(),
        "alive": alive.double().mean(),
        "antipodal": lowest.quantile(0.1),
    }
    return {
        "d_in": source.d_in,
        "k_true": source.k,
        **recovery(atoms, W_dec),
        **{name: number.item() for name, number in numbers.items()},
        "gap": gap,
        "eps_lbo": gap / (len(W_dec) - 1),
        "lowest_cosines": lowest.quantile(QUANTILES.to(x.device)).tolist(),
        "true_counts": counts.tolist(),
        "l0_at_count": [active[true == count].mean().item() for count in counts],
    }


@torch.no_grad()
def describe_sae(sae: SAE, source: Superposition) -> dict:
    """`describe` of an SAE on the held-out samples as it sees them."""
    x = sae.normalise(source.heldout(str(sae.b_dec.device))).x
    positive = (sae.pre(x) > 0).sum(-1).double().mean()
    return describe(source, x, sae.W_dec, sae.b_dec, sae.encode(x), positive)


def describe_reference(reference: Reference) -> dict:
    """`describe` of a dictionary that nobody trained."""
    source, generator = reference.source, torch.Generator().manual_seed(reference.seed)
    d_in, h = source.d_in, ROWS_OVER_D * source.d_in
    if reference.kind == "truth":
        rows, latents = as_seen(source.atoms(), source.heldout_codes())
        x = Lee.apply(source.heldout())[0]
        positive = (latents != 0).sum(-1).double().mean()
        return {"rows": len(rows)} | describe(source, x, rows, torch.zeros(d_in), latents, positive)
    if reference.kind == "antipodal basis":
        sae = antipodal_basis(d_in, generator)
    else:
        kind, dial = (TopK, source.k) if reference.kind == "untrained TopK" else (TopAFA, PLAIN / d_in)
        sae = kind(d_in, h, dial, generator=generator, normalisation="lee")
        sae.initialise(sae.normalise(source.sample(1024, 4096, reference.data_seed)).x)
    return {"rows": sae.d_sae} | describe_sae(sae, source)


def chance(source: Superposition, rows: int, seed: int) -> float:
    """`mcc` of as many random rows."""
    generator = torch.Generator().manual_seed(seed + 2**16)  # not the atoms, which have the seed itself
    return recovery(source.atoms(), random_dictionary(rows, source.d_in, generator))["mcc"]


def measure_truth(runs: list[Run | Reference]) -> Iterator[tuple[Run | Reference, dict]]:
    """References first; then each run is trained and compared with the truth."""
    for one in (run for run in runs if isinstance(run, Reference)):
        began = time.perf_counter()
        found = describe_reference(one)
        found["mcc_chance"] = chance(one.source, found["rows"], one.seed)
        yield one, found | {"seconds": time.perf_counter() - began}
    for one in trained([run for run in runs if isinstance(run, Run)]):
        source, log = one.run.source, one.log
        found = {"rows": one.run.d_sae} | describe_sae(one.sae, source)
        gain = late_gain(log["curve_tokens"], log["curve_error"])
        controls = {"mcc_chance": chance(source, one.run.d_sae, one.run.seed), "late_gain": gain}
        yield one.run, found | controls | log


def truth_seconds(run: Run | Reference) -> float:
    """Seconds of a run."""
    return train.estimate_seconds(run) if isinstance(run, Run) else 0.5


TRUTH = Study(KEY, "truth", "Does it find the truth?", truth_runs, measure_truth, truth_seconds)


SETTING = ["d_in", "k_true", "lambda_d", "variant"]
FEWEST = 5  # Z6: runs that a rank correlation needs
GOOD = -0.5  # Z6: the rank correlation that makes eps_LBO a usable sign
FACTOR, TRACKS = 2, 0.3  # X1: L0 within this factor of the truth, and its correlation with the true one
LACKS = 0.05  # X2: MCC that top-AFA may lack to TopK
STRONG = 24  # X3, X4: lambda d from which on the norm loss works in the paper
OPPOSITE = -0.9  # X4


def with_method(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with `method` (architecture, or the kind of a reference), `variant` ("paper", or one of VARIANTS),
    `lambda_d` of top-AFA and `l0_over_k` = L0 over the true one."""
    variant = pd.Series("paper", rows.index)
    longer = rows.tokens > rows.groupby("d_in").tokens.transform("min")
    for name, (options, normalisation, times) in VARIANTS.items():
        same = (rows.options == repr(tuple(options.items()))) & (rows.normalisation == normalisation)
        variant[same & (longer == (times > 1)) & (rows.architecture == "topafa")] = name
    return rows.assign(
        method=rows.architecture.fillna(rows.kind),
        variant=variant,
        lambda_d=(rows.sparsity * rows.d_in).where(rows.architecture == "topafa").round(6),
        l0_over_k=rows.l0 / rows.true_l0,
    )


def as_published(rows: pd.DataFrame, least: float = 0) -> pd.DataFrame:
    """Runs of top-AFA with the paper's settings and lambda d of at least `least`, the longer ones among them."""
    named = with_method(rows)
    found = named[(named.method == "topafa") & named.variant.isin(AS_PUBLISHED) & (named.lambda_d >= least)]
    if found.empty:
        raise NoEvidence(f"no runs of top-AFA with lambda d of at least {least:g}")
    return found


def graded(margins: pd.Series, rows: pd.DataFrame) -> str:
    """Verdict on "the margin is above 0", one margin per row: replicated if it is at the worst setting of each seed,
    with the interval over seeds; partly if only at the best one."""
    table = rows.assign(margin=margins).pivot_table(index="seed", columns=SETTING, values="margin")
    if judge(*mean_interval(table.min(axis=1))) == "replicated":
        return "replicated"
    best = judge(*mean_interval(table.max(axis=1)))
    return "partly" if best == "replicated" else best


def over_seeds(values: pd.Series, rows: pd.DataFrame) -> tuple[float, float, float]:
    """Mean over settings and its interval over seeds."""
    return mean_interval(values.groupby(rows.seed).mean())


def with_more_training(rows: pd.DataFrame, column: str) -> str:
    """How a number moves from the runs of the other lengths to the longer ones, in words."""
    longer = rows[rows.variant == "longer"]
    same = rows[(rows.variant == "paper") & (rows.lambda_d == PLAIN) & rows.k_true.isin(longer.k_true)]
    if longer.empty or same.empty:
        return "no longer run is in the table"
    return f"{LONGER} times the steps take it from {same[column].mean():.3g} to {longer[column].mean():.3g}"


def rank_correlations(rows: pd.DataFrame, column: str = "eps_lbo") -> pd.Series:
    """Spearman correlation of a column with MCC over the trained runs of one truth; one per seed, mean over truths."""
    found = {
        cell: stats.spearmanr(runs[column], runs.mcc).statistic
        for cell, runs in rows[rows.architecture.notna()].groupby(["seed", "d_in", "k_true"])
        if len(runs) >= FEWEST
    }
    if not found:
        raise NoEvidence(f"no truth has {FEWEST} trained runs")
    return pd.Series(found).groupby(level=0).mean()


def rates_dictionaries(rows: pd.DataFrame) -> Evidence:
    """Z6: the Spearman correlation of eps_LBO and MCC is below GOOD."""
    mean, low, high = mean_interval(rank_correlations(rows))
    outcome = judge(-mean, -high, -low)
    if outcome == "replicated" and high >= GOOD:
        outcome = "partly"
    sparse = rows[rows.l0_over_d < 0.5]
    try:
        among = f"{rank_correlations(sparse).mean():+.2f}"
    except NoEvidence:
        among = "not defined"
    trained_runs = rows[rows.architecture.notna()]
    best = trained_runs.loc[trained_runs.eps_lbo.idxmin()]
    return Evidence(
        outcome,
        mean,
        low,
        high,
        f"the run with the lowest eps_LBO has MCC {best.mcc:.2f} (chance {best.mcc_chance:.2f}), the best run "
        f"{trained_runs.mcc.max():.2f}; among runs with L0 < d / 2 alone the correlation is {among}; that of NMSE with "
        f"MCC over all runs is {rank_correlations(rows, 'nmse').mean():+.2f}",
    )


def finds_true_l0(rows: pd.DataFrame) -> Evidence:
    """X1: mean L0 within FACTOR of the true mean, and per sample correlated with the true one by more than TRACKS."""
    runs = as_published(rows)
    distance = np.log2(runs.l0_over_k).abs()
    outcome = both(
        graded(np.log2(FACTOR) - distance, runs),
        graded(runs.l0_correlation - TRACKS, runs),
    )
    closest = runs.loc[distance.idxmin()]
    return Evidence(
        outcome,
        *over_seeds(runs.l0_over_k, runs),
        f"L0 is {runs.l0_over_k.mean():.1f} times the true one, {closest.l0_over_k:.1f} times at the closest; its "
        f"correlation with the true one over samples is {runs.l0_correlation.mean():+.2f} on average and "
        f"{runs.l0_correlation.max():+.2f} at most; of L0, {with_more_training(runs, 'l0')}",
    )


def finds_dictionary(rows: pd.DataFrame) -> Evidence:
    """X2: MCC at least that of TopK with the true k, minus LACKS."""
    runs, truth = as_published(rows), ["seed", "d_in", "k_true"]
    topk = rows[(rows.architecture == "topk") & (rows.sparsity == rows.k_true)].set_index(truth)
    if topk.empty:
        raise NoEvidence("no run of TopK at the true k")
    matched = topk.mcc.reindex(pd.MultiIndex.from_frame(runs[truth])).to_numpy()
    lead = runs.mcc - matched
    return Evidence(
        graded(lead + LACKS, runs),
        *over_seeds(lead, runs),
        f"MCC is {runs.mcc.mean():.2f} with top-AFA, {runs.mcc.max():.2f} at most, {topk.mcc.mean():.2f} with TopK at "
        f"the true k and {runs.mcc_chance.mean():.2f} by chance; {with_more_training(runs, 'mcc')}",
    )


def is_dense(rows: pd.DataFrame) -> Evidence:
    """X3: L0 above d."""
    runs = as_published(rows, STRONG)
    return Evidence(
        graded(runs.l0_over_d - 1, runs),
        *over_seeds(runs.l0_over_d, runs),
        f"L0 / d is from {runs.l0_over_d.min():.2f} to {runs.l0_over_d.max():.2f}; "
        f"{with_more_training(runs, 'l0_over_d')}; selection keeps {runs.selected.mean():.0%} of the positive latents",
    )


def is_antipodal(rows: pd.DataFrame) -> Evidence:
    """X4: a tenth of the alive rows have a row at a cosine below OPPOSITE."""
    runs = as_published(rows, STRONG)
    topk = rows[(rows.architecture == "topk") & (rows.sparsity == rows.k_true)]
    return Evidence(
        graded(OPPOSITE - runs.antipodal, runs),
        *over_seeds(runs.antipodal, runs),
        f"the 10th percentile of the lowest cosine of a row with another is {runs.antipodal.mean():.3f}, of untrained "
        f"rows {rows[rows.kind == 'untrained top-AFA'].antipodal.mean():.3f}, with TopK at the true k "
        f"{topk.antipodal.mean():.3f}; {with_more_training(runs, 'antipodal')}",
    )


STUDIES = (TRUTH,)

FIGURES = {
    "truth-mcc": (TRUTH, "topafa_truth.mcc_against_l0", lambda rows: (with_method(rows),)),
    "truth-metric": (TRUTH, "topafa_truth.gap_against_mcc", lambda rows: (with_method(rows),)),
    "truth-l0": (TRUTH, "topafa_truth.l0_against_true", lambda rows: (with_method(rows),)),
    "truth-antipodal": (TRUTH, "topafa_truth.lowest_cosines", lambda rows: (with_method(rows),)),
}

SILENT = "the paper has no data of known truth, as far as its code and tables show"

CLAIMS = (
    Claim(
        id="topafa2025-Z6",
        statement="A lower eps_LBO marks the better dictionary.",
        rule=(
            "Over the trained runs on one truth (all methods and settings), the Spearman correlation of eps_LBO with "
            "MCC, mean over truths with at least 5 runs, is below -0.5 with its interval over seeds; partly if it is "
            "only below 0."
        ),
        published=f"lower is better; {SILENT}",
        statistic="Spearman correlation of eps_LBO and MCC",
        study=TRUTH,
        test=rates_dictionaries,
    ),
    Claim(
        id="topafa2025-X1",
        statement="The number of latents that top-AFA chooses for an input is the number of its active causes.",
        rule=(
            "With the paper's settings, longer runs included: mean L0 within a factor of 2 of the true mean, and the "
            "correlation of both over samples above 0.3, each at the worst setting of every seed with its interval; "
            "a part that holds at the best setting alone is partly."
        ),
        published=f"l0 is chosen per input (abstract); {SILENT}",
        statistic="mean L0 over true mean L0",
        study=TRUTH,
        test=finds_true_l0,
    ),
    Claim(
        id="topafa2025-X2",
        statement="top-AFA recovers the true dictionary as well as TopK at the true k.",
        rule=(
            "MCC of top-AFA with the paper's settings, longer runs included, at least that of TopK at the true k minus "
            "0.05, at the worst setting of every seed with its interval; partly if at the best setting alone."
        ),
        published=f"comparable on reconstruction error; {SILENT}",
        statistic="MCC of top-AFA - MCC of TopK at the true k",
        study=TRUTH,
        test=finds_dictionary,
    ),
    Claim(
        id="topafa2025-X3",
        statement="Critique: codes of top-AFA are not sparse, L0 is above the input's own dimension.",
        rule=(
            "L0 / d above 1 with lambda d of at least 24, longer runs included, at the worst setting of every seed "
            "with its interval; partly if at the best setting alone."
        ),
        published="2.65 to 3.15 (released tables: GPT-2 small, three layers, lambda d of at least 24)",
        statistic="L0 / d",
        study=TRUTH,
        test=is_dense,
    ),
    Claim(
        id="topafa2025-X4",
        statement="Critique: top-AFA pairs each direction with its opposite, a rotated basis instead of causes.",
        rule=(
            "10th percentile over alive rows of the lowest cosine with another below -0.9, with lambda d of at least "
            "24, longer runs included, at the worst setting of every seed with its interval; partly if at the best "
            "alone."
        ),
        published="not reported: of the cosines of rows the released code logs the highest, with its sign",
        statistic="10th percentile of the lowest cosine with another row",
        study=TRUTH,
        test=is_antipodal,
    ),
)
