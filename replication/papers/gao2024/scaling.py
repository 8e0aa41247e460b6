"""Scaling laws: error against latents, compute and tokens (figures 1, 3, 4, 11, 12, 14; C5 to C12, C20)."""

from replication.claims import Claim
from replication.papers.gao2024.grid import NO_PAGE

STUDIES = ()

FIGURES = {}


CLAIMS = (
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
)
