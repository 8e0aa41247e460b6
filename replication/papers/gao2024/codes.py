"""Shrinkage and progressive codes: latents refitted at a fixed support, or kept in other numbers (C21 to C25)."""

from replication.claims import Claim
from replication.papers.gao2024.grid import NO_PAGE

STUDIES = ()

FIGURES = {}


CLAIMS = (
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
)
