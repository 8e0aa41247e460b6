# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Frontier: JumpReLU, TopK and Gated
#
# {cite:t}`rajamanoharan2024jumprelu`, Figures 2 and 10 to 12.
#
# An autoencoder is a compromise between few active latents and small errors; a method is better than another if it makes a
# better compromise at *every* number of active latents. The paper's main figure draws these frontiers for Gemma 2 9B and
# finds JumpReLU below Gated everywhere and level with TopK or slightly below it. Its own words for the gain are modest, and
# its runs are single ones. Tested on this page:
#
# - at equal sparsity, JumpReLU is more faithful than Gated (**J2**);
# - and at least as faithful as TopK (**J3**);
# - it needs both of its ingredients, the jump and the L0 penalty (**J4**);
# - it does not shrink reconstructions, as L1 does (**J5**).

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
from replication import pages
from replication.figures import frontier as training
from replication.figures import jumprelu_frontier as figures
from replication.papers import jumprelu2024
from replication.papers.jumprelu2024 import frontier

pages.open_page(preset)

# %% [markdown]
# ## The rivals
#
# All share the decoder, the data, the number of tokens and the normalisation of {cite:t}`lieberum2024`, one constant that
# makes $\mathbb E\lVert x\rVert^2 = 1$. They differ in what makes a latent active and in what is paid for it:
#
# | | active where | loss beside $\mathbb E\lVert x-\hat x\rVert^2$ |
# |---|---|---|
# | JumpReLU | $\pi_i > \theta_i$, a learned threshold | $\lambda\,\mathbb E\lVert z\rVert_0$ |
# | TopK {cite:p}`gao2024` | $\pi_i$ among the $k$ largest | AuxK, for latents that are dead |
# | Gated {cite:p}`rajamanoharan2024gated` | a second half of the encoder, the gate, is positive | $\lambda\,\mathbb E\lVert\mathrm{ReLU}(\text{gate})\rVert_1$ and the error of a reconstruction from the gate |
# | ReLU | $\pi_i > 0$ | $\lambda\,\mathbb E\lVert z\rVert_1$ |
#
# The paper has two kinds of Gated. The *original* keeps decoder rows at unit norm. *RI-L1*, invariant to rescaling, leaves
# the norms free and weighs each term of the penalty with the norm of its row; the paper resamples dead latents in the
# original alone, this book in neither.
#
# ```{literalinclude} ../replication/sae/gated.py
# :pyobject: Gated.objective
# :caption: replication/sae/gated.py
# ```
#
# ## Harm to the language model
#
# The measure that the paper puts first is the rise of the language model's cross-entropy when the activation at one site is
# replaced by its reconstruction (*delta LM loss*). The first position of every context, whose activations are of another
# kind and size, is neither trained on nor replaced, and the mean is taken over the predictions from all others:
#
# ```{literalinclude} ../replication/evaluate/splicing.py
# :pyobject: spliced
# :caption: replication/evaluate/splicing.py
# ```

# %% tags=["remove-cell"]
rows = pages.rows_of(frontier.FRONTIER, preset, "jumprelu2024-frontier")
main = frontier.main_methods(rows)

# %% tags=["remove-input"] mystnb={"image": {"alt": "Rise in cross-entropy against the number of active latents, both on logarithmic axes, one falling line per method: JumpReLU, TopK, Gated with RI-L1, Gated original and ReLU with L1; grey lines for the activation set to its mean and to zero."}, "figure": {"name": "fig-jumprelu2024-frontier", "caption": "Harm against sparsity (after the paper's Figure 2, with mlp and attn its Figures 10 and 11); lower is better. Markers: mean over seeds at one setting of the dial; bands: lowest to highest seed. Grey: what is lost when the activation is replaced by a constant. In the paper, JumpReLU lies below both kinds of Gated everywhere and on or slightly below TopK; its figure was not at hand as numbers, so that only the order can be compared."}}
figures.fidelity(main, "delta_ce")
# %% [markdown]
# {download}`The table behind the figures of this page <tables/jumprelu2024-frontier.csv>`, one line per run. Means over seeds:

# %% tags=["remove-input"]
columns = ["l0", "delta_ce", "kl", "fvu", "dead", "often", "quite_often", "delta_ce_zero", "delta_ce_mean"]
pages.table_of(main, ["site", "layer", "method", "sparsity"], columns)

# %% [markdown]
# *often* and *quite_often* are the shares of latents that are active on more than a tenth and more than a hundredth of the
# tokens. The paper reports that JumpReLU and TopK have more latents of the first kind than Gated, yet fewer than 0.06 % of
# 131,072. A dictionary as small as the ones here cannot be as selective: with $n$ latents the mean frequency is L0 / $n$.
#
# ## Error
#
# The same comparison by the fraction of variance unexplained (FVU), which no language model is needed for:

# %% tags=["remove-input"] mystnb={"image": {"alt": "Fraction of variance unexplained against the number of active latents on logarithmic axes, one falling line per method, with grey lines for principal components and for TopK before training."}, "figure": {"name": "fig-jumprelu2024-fvu", "caption": "Error against sparsity (after the paper's Figure 12). Grey: as many principal components as there are active latents, and the untrained TopK. Where this figure and the one before put two methods in a different order, an error of the one is more harmful than an equal error of the other."}}
figures.fidelity(main, "fvu")
# %% [markdown]
# ## At equal L0, and with fewer tokens
#
# Curves are compared where they have the same L0. At the L0 of each TopK run the others are interpolated, linearly in
# logarithms and never extrapolated, and
#
# $$
# g = \overline{\ln\frac{\Delta\mathrm{CE}\ \text{of JumpReLU}}{\Delta\mathrm{CE}\ \text{of the rival}}}
# $$
#
# is one number per seed.
#
# Such a comparison has a trap. The threshold of JumpReLU is trained by the few samples near it, and its encoder
# never sees $\lambda$: latents become sparse only as thresholds rise. It needs more steps than TopK, whose sparsity holds from
# the first step, and a short run shows who is faster, not who is better. So JumpReLU, TopK and Gated with RI-L1 are also
# trained with fewer tokens, with warm-ups as much shorter; of the original Gated and ReLU there are only the runs that
# every site and layer has. If the last doubling changed $g$ by more than 0.05, and against the verdict, the verdict is
# void. Between the 6,144 steps of `cpu` and the million or two of the paper lie seven or eight more doublings.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Harm of JumpReLU divided by the harm of TopK and of Gated with RI-L1 against the number of training tokens; a grey line at 1 and a band up to 1.05."}, "figure": {"name": "fig-jumprelu2024-tokens", "caption": "Harm of JumpReLU over harm of a rival, mean over the L0 that are matched with every budget, against training tokens; below 1 JumpReLU is the better one. A line that still falls at its right end says that the comparison is not over. Grey band: up to 5 % worse, what J3 allows. Bands: lowest to highest seed."}}
figures.gap_by_tokens(frontier.gap_by_tokens(rows))
# %% tags=["remove-input"] mystnb={"image": {"alt": "One panel per rival: harm of JumpReLU divided by harm of the rival against L0, a solid line for the most tokens and dashed lines for fewer; a grey line at 1 and a band up to 1.05."}, "figure": {"name": "fig-jumprelu2024-gaps", "caption": "The same at every L0. Solid: the longest runs. Dashed and fainter: fewer tokens, for JumpReLU and for the rival. The distance between the lines says how much the verdict is about speed of training. Grey band: up to 5 % worse. Bands: lowest to highest seed."}}
figures.gaps(frontier.gaps(rows))
# %% tags=["remove-input"] mystnb={"image": {"alt": "A panel per method: training error over variance against training tokens on logarithmic axes, one line per setting of the dial."}, "figure": {"name": "fig-jumprelu2024-training", "caption": "Error during training, first seed, a line per setting (darker: larger L0). With a penalty the error may rise again while the penalty grows, over the first half of the tokens with JumpReLU and over the first quarter with Gated and ReLU."}}
training.training_curves(main)
# %% [markdown]
# ## Every site and layer
#
# The paper draws its frontiers at three layers, for the residual stream and in its appendix for the outputs of the MLP and of
# the attention heads (before $W_O$), the three places that Gemma Scope reads. Here are all five methods at all nine, with as
# many tokens as all of them have:

# %% tags=["remove-input"] mystnb={"image": {"alt": "A grid of panels, a row per site and a column per layer: rise in cross-entropy against the number of active latents on logarithmic axes, one falling line per method, with grey lines for the activation set to its mean and to zero."}, "figure": {"name": "fig-jumprelu2024-places", "caption": "Harm against sparsity at every site (rows, each with its own scale) and layer (columns); after the paper's Figures 2, 10 and 11. Grey: the activation replaced by a constant."}}
figures.fidelity(frontier.every_place(rows), "delta_ce")
# %% tags=["remove-input"] mystnb={"image": {"alt": "A grid of panels, a row per site and a column per layer: fraction of variance unexplained against the number of active latents on logarithmic axes, one falling line per method, with grey lines for principal components and for TopK before training."}, "figure": {"name": "fig-jumprelu2024-places-fvu", "caption": "Error against sparsity at every site (rows, each with its own scale) and layer (columns); after the paper's Figure 12. Grey: as many principal components as there are active latents, and the untrained TopK."}}
figures.fidelity(frontier.every_place(rows), "fvu")
# %% [markdown]
# Harm of JumpReLU over that of each rival, mean over the L0 that are matched, with its interval; a dash where fewer
# than half of them are, or where a run does no harm in too many resamples of the text:

# %% tags=["remove-input"]
pages.shown(frontier.place_table(rows))

# %% [markdown]
# ## One ingredient at a time
#
# JumpReLU changes two things about ReLU with L1: the activation jumps, and the penalty counts. Both can be changed alone.
# *JumpReLU + L1* keeps the jump and pays for magnitudes. *ReLU + L0* counts, but has no threshold: latents
# are active where the pre-activation is positive, so that the encoder's bias must do the screening, trained by the same
# pseudo-derivative in a window around zero:
#
# ```{literalinclude} ../replication/papers/jumprelu2024/frontier.py
# :pyobject: WithoutJump
# :caption: replication/papers/jumprelu2024/frontier.py
# ```
#
# A lower bias does not only screen, it also shortens every activation, and the error pulls it up again. If no $\lambda$ makes
# such an autoencoder as sparse as those that it is compared with, its sparsest run stands in for it: with fewer active
# latents it would do more harm, so this flatters it. Bandwidth, learning rate and schedule of the two are those of JumpReLU,
# not tuned again.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Rise in cross-entropy against the number of active latents on logarithmic axes for JumpReLU with L0, JumpReLU with L1, ReLU with L0 and ReLU with L1."}, "figure": {"name": "fig-jumprelu2024-two-by-two", "caption": "Solid: JumpReLU with its L0 penalty, and ReLU with L1. Dashed: one ingredient exchanged, in the colour of the activation. The paper's ablation is known from a review, which reports that both ingredients are needed; no figure was at hand."}}
figures.fidelity(frontier.two_by_two(rows), "delta_ce")
# %% tags=["remove-input"]
pages.table_of(
    frontier.two_by_two(rows), ["site", "layer", "method", "sparsity"], ["l0", "delta_ce", "fvu", "gamma", "dead"]
)

# %% [markdown]
# ## Shrinkage
#
# An L1 penalty is paid for magnitudes, so that the optimum is too short. The factor by which reconstructions would best be
# multiplied,
#
# $$
# \gamma = \frac{\mathbb E\,[x\cdot\hat x]}{\mathbb E\lVert\hat x\rVert^2},
# $$
#
# with $x$ and $\hat x$ both taken from the mean of $x$, is 1 where nothing can be gained and above 1 where reconstructions are
# too short:
#
# ```{literalinclude} ../replication/papers/jumprelu2024/frontier.py
# :pyobject: best_rescaling
# :caption: replication/papers/jumprelu2024/frontier.py
# ```

# %% tags=["remove-input"] mystnb={"image": {"alt": "The factor gamma against the number of active latents, one line per method, with a grey band around 1 and a dashed line at 1.05; a panel per site and layer where there are several."}, "figure": {"name": "fig-jumprelu2024-rescaling", "caption": "The factor by which reconstructions are best multiplied. Grey band: within 0.02 of 1, what J5 asks of JumpReLU; dashed: above it J5 calls reconstructions shrunk. TopK has no penalty at all and Gated's acts on the gate alone: both are controls."}}
figures.fidelity(main, "gamma")
# %% [markdown]
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(jumprelu2024.CLAIMS, ["J2", "J3", "J4", "J5"], preset)

# %% [markdown]
# ## What differs from the paper, and what this ran on
#
# Of the paper only parts were at hand; what its figures show is known from its text, a review and notes by others. The
# settings of its baselines are known from memory or from code.
#
# Unless the page was built with the `paper` preset, the subject is a small language model trained on Python source instead of
# Gemma 2 9B, dictionaries have hundreds or thousands of latents instead of 131,072, and runs are far shorter than 8 billion
# tokens. With `cpu` they have 6,144 steps at most, eight passes over the stored activations, and only the residual stream
# after layer 2 has the two ablations and all budgets; at all sites and layers the five methods are compared with a
# quarter as many. With `gpu` and `paper` the five have the full budget everywhere. The harm is averaged over 64 contexts
# instead of 2,048, with contexts of the small model's length. With `cpu` the dials have few settings, two of ReLU with L1
# and of JumpReLU with L1 and one of ReLU with L0: between two settings a frontier is taken for straight in logarithms.
#
# As in the recipe of {cite:t}`lieberum2024`, JumpReLU is trained by Adam without momentum ($\beta_1=0$) at a rate that never
# falls. In runs as short as those of `cpu` its weights still move when it ends, and its seeds may differ more than those of the
# others, which have $\beta_1=0.9$; no weights are averaged.
#
# The learning rate of each method was chosen on its own among powers of two, with one seed and no look at the results of this
# page: that of JumpReLU from three, at this very site and with 768 steps, by FVU, with a seed that is not reported; those of
# TopK, Gated and ReLU for the pages of {cite:t}`gao2024`, at the same site but with that paper's normalisation and with other numbers of
# latents ({doc}`log`). JumpReLU also had its bandwidth and its start chosen for short runs, as {doc}`jumprelu2024-why`
# discusses. Gated and ReLU let $\lambda$ grow over the first quarter of the tokens, JumpReLU over half. AuxK has the settings of
# {cite:t}`gao2024`, with an exact top-k; the paper uses an approximate one. Seeds draw the initial weights and
# the order of the tokens; the held-out text is always the same. Intervals of $g$ span two: Student's $t$ over
# seeds, and a bootstrap that draws seeds and held-out contexts anew, the same contexts for all methods.

# %% tags=["remove-input"]
pages.provenance(rows)
