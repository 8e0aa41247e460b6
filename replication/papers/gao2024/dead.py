"""Dead latents; ablations of initialisation, biases, decoder norm and optimiser (figures 15 to 18; C13 to C19)."""

from itertools import product

import pandas as pd

from replication.claims import Claim, Evidence, NoEvidence, both, judge, mean_interval
from replication.papers.gao2024.frontier import NOTHING, measure
from replication.papers.gao2024.grid import GRIDS, KEY, NO_PAGE, SEEDS, make_run
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


DYING = 0.01  # below this share of dead latents there is nothing to keep alive


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


STUDIES = (DEAD_LATENTS,)

FIGURES = {
    "dead-latents": (DEAD_LATENTS, "dead_latents", lambda rows: (rows,)),
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
)
