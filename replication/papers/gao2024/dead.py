"""Dead latents; ablations of initialisation, biases, decoder norm and optimiser (figures 15 to 18; C13 to C19)."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from replication.claims import NOTHING, Claim, Evidence, NoEvidence, both, judge, mean_interval
from replication.papers.gao2024.frontier import measure
from replication.papers.gao2024.grid import GRIDS, KEY, SEEDS, make_run
from replication.papers.gao2024.scaling import BATCH_SIZE, SETTLED, converged, gains, inside
from replication.papers.gao2024.variants import varied
from replication.results import Study
from replication.train import Run


def dead_latents_runs(preset: str) -> list[Run]:
    """Figure 15: transpose initialisation and AuxK, each on and off, at the largest dictionary and the smallest k."""
    sizes, ks, *_ = GRIDS[preset]
    return [
        make_run(
            preset, "topk", max(sizes), min(ks), seed, tied_init=tied, options={} if aux else {"aux_coefficient": 0.0}
        )
        for seed, tied, aux in product(SEEDS, (True, False), (True, False))
    ]


DEAD_LATENTS = Study(KEY, "dead-latents", "What keeps latents alive", dead_latents_runs, measure)


DEFAULT_EPS = 6.25e-10
EPS = (DEFAULT_EPS, 1e-8, 1e-5)
LOSS_SCALE = 1e-3
FREE_NORMS = {"unit_norm": False}
MORE_SEEDS = (0, 1, 2, 3, 4)


def effective_eps(eps: float, loss_scale: float) -> float:
    """The eps with which an unscaled loss gives the steps of Adam on `loss_scale` times the loss.

    With g -> s g the moments become s m and s^2 v, so that  s m / (sqrt(s^2 v) + eps) = m / (sqrt(v) + eps / s).
    """
    return float(f"{eps / loss_scale:.6g}")  # 1e-8 / 1e-3 and 1e-5 are one run


def default_run(preset: str, seed: int) -> Run:
    """What every ablation changes one thing of: the smallest dictionary of the grid and its second k."""
    sizes, ks, *_ = GRIDS[preset]
    return make_run(preset, "topk", min(sizes), ks[1], seed)


def settled_run(preset: str, seed: int) -> Run:
    """A run with few latents, and fewer of them active than in `default_run`: it converges within its tokens."""
    return make_run(preset, "topk", BATCH_SIZE[preset], GRIDS[preset][1][0], seed)


def ablation_runs(preset: str) -> list[Run]:
    """Figures 16 to 18: one thing changed at a time. The encoder's bias is a claim about convergence: its own pair.

    C16 to C18 are about differences as small as those that a nudge of the first weights makes: they have more seeds.
    """
    runs = []
    for seed in MORE_SEEDS:
        run, settled = default_run(preset, seed), settled_run(preset, seed)
        runs += [run, *(varied(run, change) for change in ("nudged", "norm-matched", "unscaled"))]
        runs += [replace(run, options=FREE_NORMS), settled, varied(settled, "without-bias")]
    return runs


def eps_runs(preset: str) -> list[Run]:
    """The default with every eps of EPS, the loss as it is and multiplied by LOSS_SCALE."""
    return [
        replace(default_run(preset, seed), adam_eps=effective_eps(eps, scale))
        for seed, eps, scale in product(SEEDS, EPS, (1, LOSS_SCALE))
    ]


ABLATIONS = Study(KEY, "ablations", "What initialisation, biases and norms are worth", ablation_runs, measure)
LOSS_SCALES = Study(KEY, "loss-scales", "Adam's eps and the scale of the loss", eps_runs, measure)


DYING = 0.01  # below this share of dead latents there is nothing to keep alive
FEW = 0.1  # C15: so many dead latents are no longer few


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
    """C15: dead share with neither remedy minus five times that with both, and the latter below FEW."""
    dead = _by_condition(rows, "dead")
    neither, together = dead[False, False], dead[True, True]
    if neither.max() < DYING:
        return Evidence("void", *NOTHING, "fewer than 1 % of latents die with neither remedy")
    mean, low, high = mean_interval(neither - 5 * together)
    return Evidence(
        both(judge(mean, low, high), judge(*mean_interval(FEW - together))),
        mean,
        low,
        high,
        f"{100 * neither.mean():.1f} % of latents die with neither remedy, {100 * together.mean():.1f} % with both",
    )


IRRELEVANT = 0.01  # C16, C17, C19: relative changes of NMSE below this do not count

CONDITIONS = {  # what the column `condition` says -> how a figure names it
    "default": "default: least-squares scale",
    "nudged": "control: first weights nudged",
    "norm-matched": "norms matched (released code)",
    "unscaled": "not rescaled",
    "free norms": "decoder norms free",
    "settled": "small: default",
    "without-bias": "small: no encoder bias",
}


def with_condition(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the column `condition`: what was changed, "eps" where it is Adam's."""
    named = np.select(
        [rows.sparsity < rows.sparsity.max(), rows.options.str.contains("unit_norm"), rows.adam_eps != DEFAULT_EPS],
        ["settled", "free norms", "eps"],
        "default",
    )
    return rows.assign(condition=rows.change.fillna(pd.Series(named, rows.index)) if "change" in rows else named)


def errors(rows: pd.DataFrame) -> pd.DataFrame:
    """NMSE, one line per seed and one column per condition other than "eps"."""
    named = with_condition(rows).query("condition != 'eps'")
    table = named.pivot(index="seed", columns="condition", values="nmse").reindex(columns=list(CONDITIONS))
    if table.isna().any(axis=None):
        lacking = ", ".join(table.columns[table.isna().any()])
        raise NoEvidence(f"no NMSE for every seed of: {lacking}")
    return table


def relative_changes(rows: pd.DataFrame) -> pd.DataFrame:
    """NMSE / NMSE of the default of the same size and seed - 1, for every condition but the defaults; columns seed,
    condition, change."""
    table = errors(rows)
    reference = {one: "settled" if one == "without-bias" else "default" for one in table}
    ratio = pd.DataFrame({one: table[one] / table[reference[one]] - 1 for one in table if one != reference[one]})
    return ratio.drop(columns="settled").rename_axis(columns="condition").stack().rename("change").reset_index()


def eps_changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Relative change of NMSE when the loss is multiplied by LOSS_SCALE, one line per seed, one column per eps."""
    table = with_condition(rows).query("condition in ('default', 'eps')")
    table = table.drop_duplicates(["seed", "adam_eps"]).pivot(index="seed", columns="adam_eps", values="nmse")
    needed = [effective_eps(eps, scale) for eps, scale in product(EPS, (1, LOSS_SCALE))]
    if table.reindex(columns=needed).isna().any(axis=None):
        raise NoEvidence("no NMSE for every eps and seed")
    return pd.DataFrame({eps: table[effective_eps(eps, LOSS_SCALE)] / table[eps] - 1 for eps in EPS})


def _same_error(rows: pd.DataFrame, condition: str, reference: str, names: str) -> Evidence:
    table = errors(rows)
    mean, low, high = mean_interval(table[condition] / table[reference] - 1)
    return Evidence(
        inside(mean, low, high, -IRRELEVANT, IRRELEVANT),
        mean,
        low,
        high,
        f"NMSE {table[condition].mean():.4f} {names} {table[reference].mean():.4f} with",
    )


def rescaling_is_irrelevant(rows: pd.DataFrame) -> Evidence:
    """C16: relative change of NMSE without the paper's rescaling."""
    found = _same_error(rows, "unscaled", "norm-matched", "without the rescaling,")
    table = errors(rows)
    nudge, squares = (
        table[one] / table[base] - 1 for one, base in (("nudged", "default"), ("default", "norm-matched"))
    )
    return found._replace(
        summary=f"{found.summary}; this library's least-squares scale changes it by {100 * squares.mean():+.1f} %; a "
        f"nudge of the first weights, which should do nothing, by up to {100 * nudge.abs().max():.1f} %"
    )


def bias_is_irrelevant(rows: pd.DataFrame) -> Evidence:
    """C17: relative change of NMSE without the encoder's bias, once both runs have converged."""
    pair = with_condition(rows).query("condition in ('settled', 'without-bias')")
    each = [cell for _, cell in pair.groupby("condition")]
    late = [100 * gains(cell).abs().max() for cell in each]
    if any(len(converged(cell, SETTLED)) < len(cell) for cell in each):
        return Evidence(
            "void",
            *NOTHING,
            f"not converged: one more doubling of tokens would change NMSE by about {late[0]:.1f} % with the bias and "
            f"{late[1]:.1f} % without, and the rule allows {100 * SETTLED:g} %",
        )
    return _same_error(rows, "without-bias", "settled", "without the encoder's bias,")


def unit_norm_helps(rows: pd.DataFrame) -> Evidence:
    """C18: NMSE without minus with renormalisation of the decoder."""
    table = errors(rows)
    mean, low, high = mean_interval(table["free norms"] - table["default"])
    relative = mean / table["default"].mean()
    return Evidence(
        judge(mean, low, high),
        mean,
        low,
        high,
        f"without renormalisation NMSE changes by {100 * relative:+.1f} % of its value",
    )


def eps_has_to_be_tiny(rows: pd.DataFrame) -> Evidence:
    """C19: |relative change of NMSE| beyond 1 % at both of the larger eps; the number is that of the largest."""
    changes = eps_changes(rows)
    if inside(*mean_interval(changes[EPS[0]]), -IRRELEVANT, IRRELEVANT) in ("not replicated", "void"):
        return Evidence(
            "void", *NOTHING, f"the loss's scale matters at eps = {EPS[0]:g} too: it is not eps that feels it"
        )
    beyond = {"replicated": "not replicated", "not replicated": "replicated", "partly": "void", "void": "partly"}
    inside_1 = {eps: inside(*mean_interval(changes[eps]), -IRRELEVANT, IRRELEVANT) for eps in EPS[1:]}
    each = ", ".join(f"{100 * changes[eps].mean():+.1f} % at eps = {eps:g}" for eps in EPS)
    return Evidence(
        both(*(beyond[outcome] for outcome in inside_1.values())),
        *mean_interval(changes[EPS[-1]]),
        f"a loss multiplied by {LOSS_SCALE:g} changes NMSE by {each}",
    )


STUDIES = (DEAD_LATENTS, ABLATIONS, LOSS_SCALES)

FIGURES = {
    "dead-latents": (DEAD_LATENTS, "dead.dead_latents", lambda rows: (rows,)),
    "ablations": (ABLATIONS, "dead.ablations", lambda rows: (relative_changes(rows), CONDITIONS, IRRELEVANT)),
    "loss-scale": (LOSS_SCALES, "dead.loss_scale", lambda rows: (with_condition(rows), eps_changes(rows), IRRELEVANT)),
}


CLAIMS = (
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
            "taken 5 times, above 0 with its interval; and with both below 10 %, with its interval. Void if fewer than "
            "1 % of latents die with neither."
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
        study=ABLATIONS,
        test=rescaling_is_irrelevant,
    ),
    Claim(
        id="gao2024-C17",
        statement="The encoder's bias makes no difference to the error at convergence.",
        rule=(
            "At convergence, NMSE with and without the encoder's bias differ by less than 1 %. Void if one more "
            "doubling of tokens would change either by 1 % or more."
        ),
        published="error at convergence unchanged, convergence slightly slower without it (Fig. 17); from memory",
        statistic="relative difference of NMSE with and without the encoder's bias",
        study=ABLATIONS,
        test=bias_is_irrelevant,
    ),
    Claim(
        id="gao2024-C18",
        statement="Keeping the decoder's directions at unit norm during training lowers the error of TopK.",
        rule="NMSE lower with renormalisation of the decoder than without, with its interval.",
        published="normalising the decoder helps the error (Fig. 18); from memory",
        statistic="NMSE without - NMSE with renormalisation",
        study=ABLATIONS,
        test=unit_norm_helps,
    ),
    Claim(
        id="gao2024-C19",
        statement="Adam's eps has to be tiny, else the result depends on the scale of the loss.",
        rule=(
            "Over eps = 6e-10, 1e-8 and 1e-5, multiplying the loss by 1e-3 changes NMSE by more than 1 % at large eps, "
            "the last two. Void if it does so at the smallest, too."
        ),
        published="eps = 6.25e-10; that the default of 1e-8 breaks the invariance to the loss's scale is from memory",
        statistic="relative change of NMSE when the loss is multiplied by 1e-3, per eps",
        study=LOSS_SCALES,
        test=eps_has_to_be_tiny,
    ),
)
