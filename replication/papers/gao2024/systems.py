"""Kernels, sharding and what the released code does differently (section 2.1 and the appendix on systems; C34, C35)."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from itertools import product

import pandas as pd
import torch
from scipy.stats import hypergeom

from replication import metrics, train
from replication.claims import Claim, Evidence, NoEvidence, both, judge, mean_interval
from replication.evaluate.reconstruction import reconstruction
from replication.papers.gao2024.dead import default_run
from replication.papers.gao2024.grid import GRIDS, KEY, SEEDS, make_run
from replication.papers.gao2024.variants import ReleasedAuxK, VariedRun, varied
from replication.results import Study
from replication.sae import SAE
from replication.sae.topk import TopK
from replication.shapes import Bool, Float, Tensor
from replication.store import trained
from replication.train import Run

# Two formulas for one error: the metric trap


def default_runs(preset: str) -> list[Run]:
    """The run that every ablation starts from, one per seed."""
    return [default_run(preset, seed) for seed in SEEDS]


def two_errors(x: Float[Tensor, "n d"], recon: Float[Tensor, "n d"]) -> dict[str, float]:
    """The paper's NMSE and the released code's, of a reconstruction of x and of x's mean.

    centred = E|x - recon|^2 / E|x - mean x|^2, the mean predictor has 1 (here the mean of the evaluated rows);
    readme  = E[|x - recon|^2 / |x|^2], where the mean predictor has less, the less the more of x is constant:
    for rows of equal norm readme = centred * (1 - constant), with constant = |mean x|^2 / E|x|^2.
    """
    mean = x.mean(0)
    values = {
        "centred": metrics.fvu(x, recon),
        "readme": metrics.readme_nmse(x, recon),
        "readme_mean": metrics.readme_nmse(x, mean.expand_as(x)),
        "constant": mean.square().sum() / x.square().sum(-1).mean(),
    }
    return {name: value.item() for name, value in values.items()}


def measure_errors(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """`two_errors` of the same reconstructions on preprocessed and on raw activations, with and without the first
    position of each context: columns such as `readme_raw_later`. `first_energy`: the first position's share of |x|^2.
    """
    for one in trained(runs):
        source = one.run.source
        raw = source.heldout(str(one.mean.device))
        x, _, undo = one.sae.normalise(raw)
        with torch.no_grad():  # not around the generator: it trains what is not stored
            recon = torch.cat([one.sae(part).recon for part in x.split(8192)])
        first = torch.arange(len(raw), device=raw.device) % (source.context - source.skip_first) == 0
        found = {"first_energy": (raw[first].square().sum() / raw.square().sum()).item()}
        for space, (truth, made) in {"": (x, recon), "_raw": (raw, undo(recon))}.items():
            for part, rows in {"": slice(None), "_later": ~first}.items():
                found |= {f"{name}{space}{part}": v for name, v in two_errors(truth[rows], made[rows]).items()}
        yield one.run, found | one.log


METRICS = Study(KEY, "two-metrics", "Two normalised errors of the same reconstructions", default_runs, measure_errors)


PUBLISHED_README = {"README, n = 32,768": 0.0069, "README, n = 131,072": 0.0054}
"""What the released code prints for the released SAEs of GPT-2 small, by a reader's account."""
PUBLISHED_NMSE = (0.4, 0.5)
"""The range of the paper's figures for comparable n and k."""


def long_errors(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per seed, activations, positions and formula: columns value and mean_predictor."""
    lines = []
    for (space, raw), (part, later), formula in product(
        {"preprocessed": "", "raw": "_raw"}.items(),
        {"all positions": "", "without the first": "_later"}.items(),
        ("centred", "readme"),
    ):
        mean = 1.0 if formula == "centred" else rows[f"readme_mean{raw}{later}"]
        place = {"activations": space, "positions": part, "formula": formula}
        value = rows[f"{formula}{raw}{later}"]
        lines.append(pd.DataFrame(place | {"seed": rows.seed, "value": value, "mean_predictor": mean}))
    return pd.concat(lines, ignore_index=True)


# Departures of the training loop, each trained


def departure_runs(preset: str) -> list[Run]:
    """The default, a nudged copy of it as control, and the departures that change what is learned."""
    return [
        one
        for run in default_runs(preset)
        for one in (run, *(varied(run, change) for change in ("nudged", "released-auxk", "renormalised-first")))
    ]


def bias_gradients(sae: TopK, x: Float[Tensor, "n d_in"]) -> tuple[Tensor, Tensor]:
    """Gradients on b_dec, each (d_in,), of the loss and of what the released AuxK adds to it while no latent is dead.

    The second is  -2 alpha mean(e) / E|e - mean e|^2  for the residual e = x - recon.
    """
    none, gradients = torch.empty(0, dtype=torch.int64, device=x.device), []
    for kind in (TopK, ReleasedAuxK):
        one = kind(**sae.config()).to(x.device)
        one.load_state_dict(sae.state_dict())
        gradients.append(torch.autograd.grad(one.objective(x, none).loss, one.b_dec)[0])
    plain, doubled = gradients
    return plain, doubled - plain


def norm_error(sae: SAE) -> float:
    """Mean of | |d_i| - 1 | over the decoder's rows d_i: 0 for unit rows."""
    return (sae.W_dec.norm(dim=-1) - 1).abs().mean().item()


def measure_departures(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Reconstruction, the decoder's norms, and the pull of the released AuxK on b_dec at the trained weights.

    `pull`: norm of the added gradient over that of the loss; `pull_alone`: over that of the reconstruction error with
    the latents held, 2 |mean e| / scale, which makes it alpha * scale / E|e - mean e|^2, about alpha / NMSE.
    """
    for one in trained(runs):
        heldout = one.run.source.heldout(str(one.mean.device))
        x = one.sae.normalise(heldout).x[:8192]
        plain, added = bias_gradients(one.sae, x)
        with torch.no_grad():
            held = 2 * (x - one.sae(x).recon).mean(0) / one.sae.scale
        pulls = {"pull": (added.norm() / plain.norm()).item(), "pull_alone": (added.norm() / held.norm()).item()}
        yield one.run, reconstruction(one, heldout) | one.log | pulls | {"norm_error": norm_error(one.sae)}


DEPARTURES = Study(KEY, "departures", "Departures of the released loop, trained", departure_runs, measure_departures)


DEPARTURE_NAMES = {
    "nudged": "control: first weights nudged",
    "released-auxk": "AuxK decodes with the bias",
    "renormalised-first": "decoder renormalised before the step",
}


def departures(rows: pd.DataFrame) -> pd.DataFrame:
    """NMSE / NMSE of the unchanged run of the same seed - 1; columns seed, condition, change."""
    table = rows.assign(condition=rows.change.fillna("default")).pivot(index="seed", columns="condition", values="nmse")
    ratio = table.drop(columns="default").div(table["default"], axis=0) - 1
    return ratio.stack().rename("change").reset_index()


# Averages of weights, in two orders


def average_runs(preset: str) -> list[Run]:
    return [varied(run, "averaged") for run in default_runs(preset)]


def measure_averages(runs: list[VariedRun]) -> Iterator[tuple[VariedRun, dict]]:
    """NMSE of the last weights (`nmse`) and, in lists over `decay`, of averages of the weights.

    `nmse_after`: averaged after each step, rows renormalised; `nmse_before`: averaged before it, as released, rows
    renormalised; `nmse_short`: the same with the rows as they come out; `short`: 1 - the mean norm of those rows.
    """
    for one in train.train(runs):
        heldout = one.run.source.heldout(str(one.mean.device))
        steps = one.run.tokens // one.run.batch

        def error(sae: SAE, one=one, heldout=heldout) -> float:
            return reconstruction(one._replace(sae=sae), heldout)["nmse"]

        lists = {name: [] for name in ("decay", "nmse_after", "nmse_before", "nmse_short", "short")}
        for decay in one.sae.decays:
            after, before = (one.sae.averaged(order, decay, steps) for order in ("after", "before"))
            found = {"decay": decay, "short": 1 - before.W_dec.norm(dim=-1).mean().item(), "nmse_short": error(before)}
            for sae in (after, before):
                sae.after_step()
            for name, value in (found | {"nmse_after": error(after), "nmse_before": error(before)}).items():
                lists[name].append(value)
        yield one.run, {"nmse": error(one.sae)} | lists | one.log


AVERAGES = Study(KEY, "averages", "Averages of the weights, in two orders", average_runs, measure_averages)


def average_changes(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per seed and decay: what averaging does to NMSE (`gain`), what the released order adds to that (`lag`)
    and what rows that are not renormalised add (`norms`), all relative to the NMSE of the last weights; `short`."""
    table = rows.explode(["decay", "nmse_after", "nmse_before", "nmse_short", "short"], ignore_index=True)
    columns = table[["decay", "nmse_after", "nmse_before", "nmse_short", "short"]].astype(float)
    last, after, before = table.nmse, columns.nmse_after, columns.nmse_before
    changes = {"gain": after / last - 1, "lag": (before - after) / last, "norms": (columns.nmse_short - before) / last}
    return columns[["decay", "short"]].assign(seed=table.seed, **changes)


# C34: sparse kernels against dense products

# n, k with n / k above kernels.DENSE_BELOW, up to which gradients are dense products; tokens per timed step
SPEED = {
    "smoke": (((2**12, 4), (2**13, 4)), 256),
    "cpu": (((2**14, 16), (2**15, 16)), 1024),
    "gpu": (((2**15, 32), (2**16, 32), (2**17, 32)), 4096),
    "paper": (((2**15, 32), (2**17, 32), (2**19, 32)), 4096),
}
WARM_UP, ROUNDS = 3, 5


def speed_runs(preset: str) -> list[Run]:
    sizes, batch = SPEED[preset]
    tokens = 2 * (WARM_UP + ROUNDS) * batch
    return [
        replace(make_run(preset, "topk", n, k, seed), batch=batch, tokens=tokens, dead_after=tokens)
        for seed, (n, k) in product(SEEDS, sizes)
    ]


def product_ratio(d_in: int, d_sae: int, k: int) -> float:
    """Multiplications of a dense step over those of a sparse one, per token: six products of d_in x d_sae numbers
    (encoder, decoder, both weights' gradients, the latents' and the input's) against one, and five of d_in x k."""
    return 6 * d_in * d_sae / (d_in * d_sae + 5 * d_in * k)


def seconds(work: Callable, *arguments) -> float:
    """Wall time of one call, with what it gave to a GPU."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    wait()
    began = time.perf_counter()
    work(*arguments)
    wait()
    return time.perf_counter() - began


def measure_speed(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Milliseconds of a training step with sparse kernels and with dense products, taken in turns.

    The two steps differ in the objective alone; precision, selection, Adam and projection are the same. `ratio` is the
    median over ROUNDS of dense / sparse of one round, `ratio_low` and `ratio_high` are the extremes.
    """
    device = train.default_device()
    for run in runs:
        sample = run.source.sample(run.batch, run.batch, run.data_seed, device)
        trainees = [train._Trainee(one, sample, device) for one in (run, varied(run, "dense"))]
        x = trainees[0].sae.normalise(sample).x
        times = [[seconds(t.step, x) for t in trainees] for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
        sparse, dense = (statistics.median(column) for column in zip(*times, strict=True))
        ratios = sorted(d / s for s, d in times)
        yield (
            run,
            {
                "ms_sparse": 1000 * sparse,
                "ms_dense": 1000 * dense,
                "ratio": statistics.median(ratios),
                "ratio_low": ratios[0],
                "ratio_high": ratios[-1],
                "ratio_of_products": product_ratio(run.source.d_in, run.d_sae, int(run.sparsity)),
                "seconds": sum(map(sum, times)),
                "peak_gib": train._peak_gib(device),
                "precision": "bf16" if train._uses_bf16(device) else "fp32",
            },
        )


SPEED_UP = Study(KEY, "sparse-kernels", "A step with sparse kernels against dense products", speed_runs, measure_speed)


# C35: each shard offers a few candidates

SHARDS, CAPACITIES = (2, 4, 8), (1, 2, 4)
SHARDED_TOKENS = 4096


def sharded_runs(preset: str) -> list[Run]:
    """TopK at the larger dictionary size and every k: the stored SAEs of the frontier."""
    sizes, ks, *_ = GRIDS[preset]
    return [make_run(preset, "topk", max(sizes), k, seed) for seed, k in product(SEEDS, ks)]


def candidates(k: int, shards: int, capacity: float) -> int:
    """How many latents a shard offers: floor(capacity * k / shards), at most k, as in the released code."""
    return min(int(capacity * k // shards), k)


def sharded_topk(pre: Float[Tensor, "n d_sae"], k: int, shards: int, capacity: float) -> Bool[Tensor, "n d_sae"]:
    """Which latents are kept when each of `shards` equal blocks offers its `candidates` and the k largest offers win.

    A shard that holds more winners than it may offer loses the rest; weaker latents of other shards take their places.
    """
    offered = candidates(k, shards, capacity)
    if offered * shards < k:
        raise ValueError(f"capacity={capacity} lets {shards} shards offer {offered * shards} latents, fewer than k={k}")
    blocks = pre.unflatten(-1, (shards, -1))
    chosen = torch.zeros_like(blocks, dtype=torch.bool).scatter_(-1, blocks.topk(offered, dim=-1).indices, True)
    offers = pre.masked_fill(~chosen.flatten(-2), -torch.inf)
    return torch.zeros_like(pre, dtype=torch.bool).scatter_(-1, offers.topk(k, dim=-1).indices, True)


def expected_found(d_sae: int, k: int, shards: int, capacity: float) -> float:
    """Expected share of the exact top k that is kept if the winners are spread over the shards at random.

    A shard's number of winners X is hypergeometric, and it can offer at most c of them: shards E[min(X, c)] / k.
    """
    offered = candidates(k, shards, capacity)
    winners = hypergeom(d_sae, k, d_sae // shards)
    return shards * sum(min(x, offered) * winners.pmf(x) for x in range(k + 1)) / k


def measure_sharding(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Lists with an entry per shards, capacity and order of the latents ("stored", or "shuffled" over the shards):

    `found`, the share of the exact top k that the sharded selection keeps; `expected` by chance; `rise`, how much NMSE
    rises relative to exact selection. Settings in which the shards cannot offer k latents are left out.
    """
    for one in trained(runs):
        sae, k, n = one.sae.requires_grad_(False), int(one.run.sparsity), one.run.d_sae
        x = sae.normalise(one.run.source.heldout(str(one.mean.device))).x[:SHARDED_TOKENS]
        pre = sae.pre(x)
        exact = torch.zeros_like(pre, dtype=torch.bool).scatter_(-1, pre.topk(k, dim=-1).indices, True)
        nmse = metrics.nmse(x, sae.decode(pre.relu() * exact), one.mean)
        shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(one.run.seed)).to(pre.device)
        lists = {name: [] for name in ("shards", "capacity", "order", "found", "expected", "rise")}
        for shards, capacity, order in product(SHARDS, CAPACITIES, ("stored", "shuffled")):
            if candidates(k, shards, capacity) * shards < k:
                continue
            place = torch.arange(n, device=pre.device) if order == "stored" else shuffled
            kept = torch.empty_like(exact)
            kept[:, place] = sharded_topk(pre[:, place], k, shards, capacity)
            found = (kept & exact).sum() / exact.sum()
            rise = metrics.nmse(x, sae.decode(pre.relu() * kept), one.mean) / nmse - 1
            entry = (shards, capacity, order, found.item(), expected_found(n, k, shards, capacity), rise.item())
            for name, value in zip(lists, entry, strict=True):
                lists[name].append(value)
        yield one.run, lists | {"nmse": nmse.item()} | one.log


SHARDED = Study(KEY, "sharded-topk", "Top k over shards that offer a few candidates", sharded_runs, measure_sharding)


def long_sharding(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per run, shards, capacity and order: columns seed, k, d_sae, shards, capacity, order, found, ..."""
    lists = ["shards", "capacity", "order", "found", "expected", "rise"]
    table = rows.rename(columns={"sparsity": "k"})[["seed", "k", "d_sae", *lists]].explode(lists, ignore_index=True)
    return table.astype({"found": float, "expected": float, "rise": float, "shards": int, "capacity": float})


# Claims

LEAST, MOST = 1.5, 6.0  # C34
NEARLY_ALL = 0.999  # C35


def sparse_kernels_are_faster(rows: pd.DataFrame) -> Evidence:
    """C34: at every size with k / n below 1/100, the ratio is above 1.5 and below 6; the number is the mean ratio."""
    wide = rows[rows.sparsity / rows.d_sae < 0.01]
    if wide.empty:
        raise NoEvidence("no timed size has k / n below 1/100")
    by_size = [cell.ratio for _, cell in wide.groupby("d_sae")]
    outcomes = [judge(*mean_interval([min(r - LEAST, MOST - r) for r in ratio])) for ratio in by_size]
    each = ", ".join(f"{cell.ratio.mean():.2f} at n = {n:,}" for n, cell in wide.groupby("d_sae"))
    return Evidence(
        reduce(both, outcomes),
        *mean_interval(wide.groupby("seed").ratio.mean()),
        f"a step with dense products takes {each} times as long, on {', '.join(sorted(rows.device.unique()))}; fewer "
        f"multiplications alone would give up to {rows.ratio_of_products.max():.1f}",
    )


def shards_find_the_top_k(rows: pd.DataFrame) -> Evidence:
    """C35: the share found at every k, every number of shards and a capacity of 2 or more; the number is the worst."""
    table = long_sharding(rows).query("capacity >= 2")
    stored = table[table.order == "stored"]
    if stored.empty:
        raise NoEvidence("no selection over shards with a capacity of 2 or more")
    settings = list(stored.groupby(["k", "shards", "capacity"]))
    outcomes = [judge(*mean_interval(cell.found - NEARLY_ALL)) for _, cell in settings]
    (k, shards, capacity), worst = min(settings, key=lambda setting: setting[1].found.mean())
    shuffled = table[(table.order == "shuffled") & (table.k == k) & (table.shards == shards)]
    shuffled = shuffled[shuffled.capacity == capacity].found.mean()
    share, chance = 100 * worst.found.mean(), 100 * worst.expected.mean()
    return Evidence(
        reduce(both, outcomes),
        *mean_interval(worst.found),
        f"{outcomes.count('replicated')} of {len(outcomes)} settings find more than {100 * NEARLY_ALL:g} %; at worst, "
        f"k = {k:g} over {shards} shards with c = {capacity:g}, {share:.1f} % are found ({100 * shuffled:.1f} % with "
        f"latents shuffled over the shards, {chance:.1f} % expected by chance)",
    )


STUDIES = (METRICS, DEPARTURES, AVERAGES, SPEED_UP, SHARDED)

FIGURES = {
    "two-metrics": (METRICS, "systems.two_metrics", lambda rows: (long_errors(rows), PUBLISHED_README, PUBLISHED_NMSE)),
    "departures": (DEPARTURES, "dead.ablations", lambda rows: (departures(rows), DEPARTURE_NAMES)),
    "averages": (AVERAGES, "systems.averages", lambda rows: (average_changes(rows),)),
    "sparse-kernels": (SPEED_UP, "systems.speed_up", lambda rows: (rows, (LEAST, MOST))),
    "sharded-topk": (SHARDED, "systems.sharding", lambda rows: (long_sharding(rows), NEARLY_ALL)),
}


CLAIMS = (
    Claim(
        id="gao2024-C34",
        statement="Sparse kernels speed up training by a factor of up to six.",
        rule=(
            "With k / n below 1/100, a training step with dense products takes more than 1.5 times and less than 6 "
            "times as long as one with sparse kernels, at every size timed."
        ),
        published="up to 6 times; from memory",
        statistic="step time dense / step time sparse",
        study=SPEED_UP,
        test=sparse_kernels_are_faster,
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
        statistic="share of the exact top k that the sharded one selects, in the worst setting",
        study=SHARDED,
        test=shards_find_the_top_k,
    ),
)
