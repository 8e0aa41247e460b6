"""What single latents know and do: probe loss, sparsity of effects (figures 6, 23, 32, 33; C26, C30-C32)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy import stats

from replication.claims import NOTHING, Claim, Evidence, NoEvidence, both, judge, mean_interval
from replication.evaluate.ablation import ablation_sparsity
from replication.evaluate.probes import Scores, labelled_fingerprint, probe, python_tasks
from replication.evaluate.reconstruction import passed, reconstruction
from replication.papers.gao2024.codes import chosen_on_others, left_out
from replication.papers.gao2024.grid import KEY, SEEDS, make_run
from replication.papers.gao2024.scaling import scaling_runs
from replication.results import Study
from replication.shapes import Float, Tensor
from replication.store import trained
from replication.train import Run


def measure_probes(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Probe loss per task of the latents, of the same SAE before its first step, and of channels of the activation."""
    controls: dict[tuple, Scores] = {}
    for one in trained(runs):
        run, data = one.run, python_tasks(one.run.source, str(one.mean.device))
        x = one.sae.normalise(data.activations).x

        def probed(directions: Tensor) -> Scores:
            return probe(x, data.labels, data.train, directions)  # noqa: B023  used in this iteration alone

        channels, untrained = (run.source,), (run.source, run.d_sae, run.seed)  # neither depends on k
        if channels not in controls:
            controls[channels] = probed(torch.eye(x.shape[1], device=x.device))
        if untrained not in controls:
            controls[untrained] = probed(one.untrained.W_enc.detach())
        latents = probed(one.sae.W_enc.detach())
        measured = {
            "probe_loss": latents.test.mean().item(),
            "probe_loss_train": latents.train.mean().item(),
            "probe_loss_untrained": controls[untrained].test.mean().item(),
            "probe_loss_channels": controls[channels].test.mean().item(),
            "tasks": list(data.tasks),
            "task_loss": latents.test.tolist(),
            "task_loss_untrained": controls[untrained].test.tolist(),
            "task_loss_channels": controls[channels].test.tolist(),
            "probe_tokens": len(x),
            "labelled_fingerprint": labelled_fingerprint(run.source),
        }
        yield run, measured | one.log


@dataclass(frozen=True)
class LabelledStudy(Study):
    """A study that reads labelled text beside the source's own, and names it in the column `labelled_fingerprint`."""

    def is_stale(self, run: Run, row: dict, committed: bool) -> bool:
        """As of any study, and where, for rows of this machine, the labelled text has changed."""
        if super().is_stale(run, row, committed):
            return True
        return not committed and row.get("labelled_fingerprint") != labelled_fingerprint(run.source)


PROBES = LabelledStudy(KEY, "probes", "Loss of probes that read one latent", scaling_runs, measure_probes)


DENSE = {  # dictionary size, k up to the width d of the activations
    "smoke": (128, (4, 8, 16, 44)),
    "cpu": (512, (4, 8, 16, 32, 64, 89, 128)),
    "gpu": (2**12, (4, 8, 16, 32, 64, 128, 179, 256)),
    "paper": (2**15, (8, 16, 32, 64, 128, 256, 384, 537, 768)),
}


def effects_runs(preset: str) -> list[Run]:
    """TopK at one dictionary size, with k up to the width of the activations."""
    n, ks = DENSE[preset]
    return [make_run(preset, "topk", n, k, seed) for seed, k in product(SEEDS, ks)]


def densest(density: Float[Tensor, " d_sae"], count: int) -> float:
    """Mean density of the `count` densest latents: k / d_sae if all are used alike, at most k / count."""
    return density.topk(min(count, len(density))).values.mean().item()


def measure_effects(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Sparsity of effects under both conventions with controls, density of the d densest latents, reconstruction."""
    for one in trained(runs):
        source, device = one.run.source, str(one.mean.device)
        heldout = source.heldout(device)
        x = one.sae.normalise(heldout).x
        passes = passed(one.sae, x), passed(one.untrained, x)
        density = {
            "width": x.shape[1],
            "densest": densest(passes[0].density, x.shape[1]),
            "densest_untrained": densest(passes[1].density, x.shape[1]),
        }
        effects = ablation_sparsity(one.sae, one.untrained, source, one.run.seed, device=device)
        yield one.run, effects | density | reconstruction(one, heldout, passes) | one.log


EFFECTS = Study(KEY, "effects", "Sparsity of the effects of single latents", effects_runs, measure_effects)


TASKS, SIZES = 10, 4  # C26: least number of tasks, and of dictionary sizes that a rank correlation is taken over
RANK = -0.8
SPARSER = 0.5  # C30
CHANNELS = (0.5, 0.7)  # C30
FEW = 0.25  # of d: k up to here is used for C30
UP_TO = 0.7  # of d: C31
HALF = 0.5  # of d: C32
JUMP = 1.25  # C32; fixed before anything was measured
CONVENTIONS = {"effect_residual": "from the activation", "effect_reconstruction": "from the reconstruction"}
PUBLISHED_PROBE_LOSS = {"loss": (0.49, 0.52), "label": "paper: 61 tasks on English text, GPT-2 (Fig. 6)"}
PUBLISHED_EFFECTS = {"latents": (0.10, 0.14), "channels": 0.60}


def interior_minimum(table: pd.DataFrame) -> tuple[str, list[float]]:
    """Verdict on 'the lowest value lies at an inner column', from one line per seed, and the inner columns chosen.

    For every seed the inner column with the lowest mean over the other seeds is chosen, and both outer columns have to
    lie above it on the seed itself; the verdict is the weaker one of the two differences.
    """
    if table.shape[1] < 3 or table.isna().any(axis=None):
        raise NoEvidence("a minimum inside a range needs at least three settings, each with every seed")
    inner = table.iloc[:, 1:-1]
    ends = [judge(*mean_interval(table.iloc[:, end] - left_out(inner))) for end in (0, -1)]
    chosen = sorted(map(float, chosen_on_others(inner).unique()))
    return max(ends, key=("replicated", "partly", "void", "not replicated").index), chosen


def rank_with_size(rows: pd.DataFrame, column: str = "probe_loss") -> pd.Series:
    """Spearman correlation of `column` with n, per seed: the mean over the k that have at least SIZES sizes."""
    cells = [cell for _, cell in rows.groupby(["seed", "sparsity"]) if cell.d_sae.nunique() >= SIZES]
    if not cells:
        raise NoEvidence(f"a rank correlation with n needs at least {SIZES} dictionary sizes at one k")
    found = pd.DataFrame(
        [(cell.seed.iloc[0], stats.spearmanr(cell.d_sae, cell[column]).statistic) for cell in cells],
        columns=["seed", "rank"],
    )
    return found.groupby("seed")["rank"].mean()


def by_k(rows: pd.DataFrame, column: str = "probe_loss") -> pd.DataFrame:
    """`column` per seed (lines) and k (columns), mean over the dictionary sizes at which every k was trained."""
    complete = rows.groupby("d_sae").filter(lambda cell: cell.sparsity.nunique() == rows.sparsity.nunique())
    return complete.pivot_table(column, "seed", "sparsity")


def tasks_of_best(rows: pd.DataFrame) -> pd.DataFrame:
    """Losses per task and seed, at the largest n and the k with the lowest mean loss there on the files that probes are
    trained on: columns task, seed, n, k, latents, untrained, channels."""
    largest = rows[rows.d_sae == rows.d_sae.max()]
    best = largest[largest.sparsity == largest.groupby("sparsity").probe_loss_train.mean().idxmin()]
    names = {"task": best.tasks, "latents": best.task_loss}
    names |= {control: best[f"task_loss_{control}"] for control in ("untrained", "channels")}
    long = pd.DataFrame(names | {"seed": best.seed, "n": best.d_sae, "k": best.sparsity})
    return long.explode(["task", "latents", "untrained", "channels"], ignore_index=True)


def gain_at_largest(rows: pd.DataFrame) -> pd.Series:
    """Probe loss before training minus after it, per seed, mean over k at the largest n: what is not owed to choosing
    the best of many directions."""
    largest = rows[rows.d_sae == rows.d_sae.max()]
    return (largest.probe_loss_untrained - largest.probe_loss).groupby(largest.seed).mean()


def probes_improve(rows: pd.DataFrame) -> Evidence:
    """C26: rank correlation of the mean probe loss with n, whether a middle k does best, and whether training helps."""
    texts = rows.reindex(columns=["labelled_fingerprint"]).labelled_fingerprint.unique()
    if len(texts) > 1 or pd.isna(texts).any():
        raise NoEvidence("rows do not name one labelled text that all of them share")
    fewest = rows.tasks.map(len).min()
    if fewest < TASKS:
        return Evidence("void", *NOTHING, f"only {fewest} tasks have enough tokens of both classes")
    rank, control = rank_with_size(rows), rank_with_size(rows, "probe_loss_untrained")
    middle, best = interior_minimum(by_k(rows))
    gain = mean_interval(gain_at_largest(rows))
    optimism = (rows.probe_loss - rows.probe_loss_train).mean()
    outcome = both(judge(*mean_interval(RANK - rank)), middle)
    return Evidence(
        "partly" if outcome == "replicated" and judge(*gain) != "replicated" else outcome,
        *mean_interval(rank),
        f"over {fewest} tasks on Python code the rank correlation with n is {rank.mean():+.2f}, that of untrained "
        f"dictionaries {control.mean():+.2f}; at the largest n training lowers the loss by {gain[0]:.3f} "
        f"[{gain[1]:.3f}, {gain[2]:.3f}]; of the inner k, {_listed(best)} does best on the other seeds ({middle} as a "
        f"minimum inside the range); the loss on other files is {optimism:+.3f} above that on the files probes were "
        "chosen on",
    )


def _listed(ks: list[float]) -> str:
    return " or ".join(f"{k:g}" for k in ks)


def latents_are_sparser(rows: pd.DataFrame) -> Evidence:
    """C30: effects of latents against those of channels, under both conventions, means over k up to FEW d."""
    columns = [*CONVENTIONS, "effect_channels", "effect_untrained", "effect_residual_here", "effect_channels_here"]
    seen = rows[rows.sparsity <= FEW * rows.width].groupby("seed")[columns].mean()
    low, high = CHANNELS
    channels = seen.effect_channels
    parts = [judge(*mean_interval(SPARSER * channels - seen[column])) for column in CONVENTIONS]
    inside = judge(*mean_interval(np.minimum(channels - low, high - channels)))
    mean = seen.mean()
    return Evidence(
        both(reduce(both, parts), inside),
        *mean_interval(seen.effect_residual / channels),
        f"latents {mean.effect_residual:.3f} (taken from the activation) and {mean.effect_reconstruction:.3f} (from "
        f"the reconstruction), channels {mean.effect_channels:.3f}, untrained latents {mean.effect_untrained:.3f}; at "
        f"the token itself alone latents {mean.effect_residual_here:.3f}, channels {mean.effect_channels_here:.3f}",
    )


def sparsity_reverses(rows: pd.DataFrame) -> Evidence:
    """C31: whether the sparsity of effects has its minimum inside k <= UP_TO d, under both conventions."""
    tables = [
        rows[rows.sparsity <= UP_TO * rows.width].pivot_table(column, "seed", "sparsity")
        for column in (*CONVENTIONS, "effect_untrained")
    ]
    (first, at_first), (second, at_second), (control, _) = map(interior_minimum, tables)
    return Evidence(
        both(first, second),
        *mean_interval(tables[0].idxmin(axis=1) / rows.width.iloc[0]),
        f"of the inner k, {_listed(at_first)} has the sparsest effects taken from the activation on the other seeds "
        f"({first} as a minimum inside the range) and {_listed(at_second)} taken from the reconstruction ({second}); "
        f"before training: {control}",
    )


def excess_density(rows: pd.DataFrame, column: str = "densest") -> pd.DataFrame:
    """ln(density of the d densest latents / what the power law through k < HALF d predicts), per run of larger k.

    Columns seed, sparsity, predicted, excess. The power law is a line in ln density against ln k, one per seed; a
    prediction is at most 1. `column`: "densest_untrained" for the same of the untrained SAEs.
    """
    parts = []
    for seed, cell in rows.groupby("seed"):
        small = cell[cell.sparsity < HALF * cell.width]
        large = cell[cell.sparsity >= HALF * cell.width]
        if small.sparsity.nunique() < 3 or large.empty:
            raise NoEvidence("the trend needs three k below half the width, and a k above, for every seed")
        line = np.polyfit(np.log(small.sparsity), np.log(small[column]), 1)
        predicted = np.minimum(np.exp(np.polyval(line, np.log(large.sparsity))), 1)
        excess = np.log(large[column] / predicted)
        parts.append(pd.DataFrame({"seed": seed, "sparsity": large.sparsity, "predicted": predicted, "excess": excess}))
    return pd.concat(parts, ignore_index=True)


def solutions_turn_dense(rows: pd.DataFrame) -> Evidence:
    """C32: mean excess over k >= HALF d, against ln JUMP; denser than the trend by less than that is 'partly'."""
    found = excess_density(rows)
    mean, low, high = mean_interval(found.groupby("seed").excess.mean())
    outcome = judge(mean, low, high)
    at_k = ", ".join(f"{np.exp(e):.2f} at k = {k:g}" for k, e in found.groupby("sparsity").excess.mean().items())
    there = rows[rows.sparsity >= HALF * rows.width]
    untrained = np.exp(excess_density(rows, "densest_untrained").excess.mean())
    return Evidence(
        "partly" if outcome == "replicated" and low <= np.log(JUMP) else outcome,
        mean,
        low,
        high,
        f"density of the d densest latents over the trend of smaller k: {at_k}, before training {untrained:.2f}; mean "
        f"density there {there.densest.mean():.2f}, before training {there.densest_untrained.mean():.2f}",
    )


STUDIES = (PROBES, EFFECTS)

FIGURES = {
    "probe-loss": (PROBES, "probes.probe_loss", lambda rows: (rows, PUBLISHED_PROBE_LOSS)),
    "probe-tasks": (PROBES, "probes.probe_tasks", lambda rows: (tasks_of_best(rows),)),
    "effect-sparsity": (EFFECTS, "probes.effect_sparsity", lambda rows: (rows, CONVENTIONS, PUBLISHED_EFFECTS)),
    "densest-latents": (EFFECTS, "probes.densest_latents", lambda rows: (rows, excess_density(rows))),
}


CLAIMS = (
    Claim(
        id="gao2024-C26",
        statement=(
            "With more latents, single latents predict known features of text better, and a middle number of active "
            "latents does best."
        ),
        rule=(
            "Over 10 to 30 classification tasks, with probes scored on held-out texts, the rank correlation (Spearman) "
            "of mean probe loss with n is below -0.8, and the lowest probe loss lies at a k inside the tested range "
            "(the inner k is chosen on the other seeds), each with its interval; no more than partly where, at the "
            "largest n, the loss is not below that of the same dictionaries before training. Void with fewer than 10 "
            "tasks."
        ),
        published=(
            "larger n better, middle k best, probe loss from 0.52 to 0.49 (Fig. 6: GPT-2); figure number uncertain"
        ),
        statistic="Spearman correlation of probe loss with n, mean over k",
        study=PROBES,
        test=probes_improve,
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
        statistic="sparsity of effects, latents (taken from the activation) / channels",
        study=EFFECTS,
        test=latents_are_sparser,
    ),
    Claim(
        id="gao2024-C31",
        statement=(
            "The effects of single latents become sparser as more are active per token, until their number comes close "
            "to the width of the activations."
        ),
        rule=(
            "With k up to 0.7 times the width, the sparsity of C30 (smaller is sparser) has its minimum inside the "
            "range: at the inner k that is sparsest on the other seeds it is below that at both ends, with its "
            "interval, under both ways to remove a latent."
        ),
        published="larger k gives sparser effects until k = 512, where it reverses (GPT-2, width 768)",
        statistic="k at the minimum of the sparsity of effects / width",
        study=EFFECTS,
        test=sparsity_reverses,
    ),
    Claim(
        id="gao2024-C32",
        statement="As the number of active latents nears the width of the activations, solutions turn dense.",
        rule=(
            "The mean density (share of tokens on which a latent is active) of the d densest latents, d being the "
            "width, jumps where k is 0.5 d or more: with its interval it is more than 1.25 times what the power law "
            "through smaller k predicts. The size of the jump was fixed before it was measured."
        ),
        published=(
            "dense from k of about 512, strongly so at k = 2,048 with n = 32,768 (Fig. 26 to 31); from memory, numbers "
            "uncertain"
        ),
        statistic="ln(density of the d densest latents / trend of smaller k), mean over k of 0.5 d or more",
        study=EFFECTS,
        test=solutions_turn_dense,
    ),
)
