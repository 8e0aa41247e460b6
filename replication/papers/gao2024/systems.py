"""Kernels, sharding and the errors of the released code (section 5; C34, C35)."""

from replication.claims import Claim
from replication.papers.gao2024.grid import NO_PAGE

STUDIES = ()

FIGURES = {}


CLAIMS = (
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
