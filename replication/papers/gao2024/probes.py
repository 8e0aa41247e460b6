"""What single latents know and do: probe loss, sparsity of effects, fidelity (figures 6, 23, 32, 33; C26, C30-C33)."""

from replication.claims import Claim
from replication.papers.gao2024.grid import NO_PAGE

STUDIES = ()

FIGURES = {}


CLAIMS = (
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
)
