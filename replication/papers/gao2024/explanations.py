"""Explanations of latents by token patterns, N2G (figures 7, 24, 25; C27 to C29)."""

from replication.claims import Claim
from replication.papers.gao2024.grid import NO_PAGE

STUDIES = ()

FIGURES = {}


CLAIMS = (
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
)
