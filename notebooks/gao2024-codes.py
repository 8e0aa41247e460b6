# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Shrinkage, and codes of another length
#
# {cite:t}`gao2024`, Figures 8 and 10.
#
# Training fixes a rule that turns pre-activations into latents. This page changes the latents of trained autoencoders
# afterwards, in two ways, and asks what the rule had cost.
#
# *First*, the same latents stay active, but their values are fitted again. An L1 penalty asks for small values, so ReLU's
# should come out too small; TopK has no penalty. The claims:
#
# - ReLU with L1 makes its latents systematically too small, and TopK does not (**C21**);
# - undoing this closes only part of ReLU's gap to TopK (**C22**).
#
# *Second*, another number of latents is kept than in training. A code is *progressive* if it can be cut anywhere, and
# keeping more of it is never worse. The claims:
#
# - an autoencoder trained with TopK gets worse when far more than $k$ latents are kept (**C23**);
# - training on two values of $k$ at once, Multi-TopK, makes the code progressive at a small cost (**C24**);
# - one threshold for all latents can then replace TopK, which after plain TopK costs error above $k$ (**C25**).

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
import pandas as pd

from replication import pages
from replication.figures import codes as figures
from replication.papers import gao2024
from replication.papers.gao2024 import codes

pages.open_page(preset)

# %% [markdown]
# ## Latents fitted again
#
# The decoder and, for each token, the set $S$ of active latents are held fixed. Only the values may change:
#
# $$
# z' = \arg\min_{z \ge 0,\ z_i = 0 \text{ for } i \notin S} \big\lVert x - z\,W_{dec} - b_{dec} \big\rVert^2 .
# $$
#
# The encoder had to guess $z'$ in one linear step; this is the best that it could have guessed. The paper, as far as is
# remembered, runs projected gradient descent. The problem is convex, so every sound method finds the same minimum. Here
# it is solved exactly, by a batched non-negative least squares in double precision, which the tests compare with SciPy's.
# Each row of the table records by how much its worst latent misses the conditions for a minimum; a run that misses them
# by more than $10^{-6}$ counts for no claim.
#
# ```{literalinclude} ../replication/evaluate/codes.py
# :pyobject: refine
# :caption: replication/evaluate/codes.py
# ```
#
# If latents are too small, their sum grows in the fit. If they are only imprecise, some grow, some shrink, and the sum
# stays. The paper finds the first for ReLU and the second for TopK, with smaller changes (section 5.1, Figure 8a). The page
# shows both numbers.

# %% tags=["remove-cell"]
refined = pages.rows_of(codes.REFINEMENT, preset, "gao2024-refinement")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels against the number of active latents, for ReLU with L1 and for TopK: the sum of latents after the fit over the sum before, with a grey corridor around one, and the mean absolute change of an active latent."}, "figure": {"name": "fig-gao2024-refinement", "caption": "What the fit does to the latents. Left: the sum of all latents after the fit, divided by the sum before; above 1 they were too small, and the grey corridor is what C21 counts as no bias. Right: by how much an active latent changes on average; inputs have norm 1. Markers: mean over seeds at one setting of the dial; bands: lowest to highest seed. The paper gives no numbers; its Figure 8a has systematically larger values for ReLU and no bias for TopK."}}
figures.refinement(refined)
# %% [markdown]
# How much of the error was shrinkage? The next figure draws error and downstream loss before and after. Two things keep the
# comparison honest. *One factor*: if every latent were too small by the same factor, multiplying all of them by one number
# would repair it, so the dotted line shows what the best such number achieves. *An untrained dictionary*: fitting always
# helps, and the more latents are active the more it helps; with as many active latents as dimensions, any dictionary fits
# perfectly. So C22 is judged below a quarter of the width alone, at equal L0, and the same fit is made with the untrained
# dictionary. NMSE is measured on tokens drawn at random from the held-out text, the loss of the language model on blocks
# that are evenly spread over all of it.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels against the number of active latents on logarithmic axes: normalised mean squared error, and rise in cross-entropy of the language model, each before the fit in solid and after it in dashed lines, for ReLU with L1 and for TopK, with grey lines for principal components and for an untrained dictionary before and after the fit."}, "figure": {"name": "fig-gao2024-refinement-errors", "caption": "Error (left) and harm to the language model (right) before and after the fit, at the same active latents. C22 holds if the dashed ReLU line lies between the solid lines of ReLU and TopK, left of the vertical line. Dotted, in ReLU's colour: all of its latents multiplied by the one best factor instead of fitted. Grey: what needs no training. Markers: mean over seeds; bands: lowest to highest seed. In the paper both architectures gain, on both measures, and the gap closes only in part (Figure 8b and c, from memory)."}}
figures.refinement_errors(refined)
# %% [markdown]
# {download}`The table behind both figures <tables/gao2024-refinement.csv>`, one line per run. In it, `ratio` and `change` are
# the two panels above, `size` is the mean of an active latent before the fit, and `..._refined` stands for after it.
# `ratio_untrained` is the same ratio for the untrained dictionary: what the fit does to latents that nothing has trained.
# Means over seeds:

# %% tags=["remove-input"]
pages.table_of(
    refined,
    ["architecture", "d_sae", "sparsity"],
    ["l0", "ratio", "ratio_untrained", "change", "size", "nmse", "nmse_refined", "nmse_rescaled"]
    + ["nmse_untrained", "nmse_untrained_refined", "nmse_pca", "delta_ce", "delta_ce_refined", "delta_ce_mean", "dead"],
)

# %% [markdown]
# ## Another number of latents at test time
#
# Two rules take the place of the trained one. *TopK(k′)* keeps the $k'$ largest pre-activations per token. *One threshold*
# (JumpReLU with the same threshold for all latents) keeps those above it, so that tokens differ in how many they keep; the
# threshold is chosen on other held-out tokens than those that are measured, so that the mean number of active latents is
# the one that TopK($k'$) has.
#
# ```{literalinclude} ../replication/evaluate/codes.py
# :pyobject: keep_largest
# :caption: replication/evaluate/codes.py
# ```
# ```{literalinclude} ../replication/evaluate/codes.py
# :pyobject: thresholds
# ```
#
# In all rules a latent must also be positive, as in the paper's released code. An autoencoder that has fewer than $k'$
# positive pre-activations on a token keeps fewer than $k'$: its error no longer changes, and would pass for one that does
# not rise. So where the mean falls more than 5 % short of $2k$ or $4k$, C23, C24 and C25 are void.
#
# Multi-TopK is TopK with another loss, the sum of the errors at two numbers of latents, $L(k) + L(4k)/8$, from one pass of
# the encoder:
#
# ```{literalinclude} ../replication/sae/topk.py
# :pyobject: TopK.objective
# :caption: replication/sae/topk.py
# ```

# %% tags=["remove-cell"]
kept = pages.rows_of(codes.TEST_TIME, preset, "gao2024-test-time")
points = codes.curves(kept)

# %% tags=["remove-input"] mystnb={"image": {"alt": "Panels of normalised mean squared error against the mean number of active latents at test time on logarithmic axes: one for each k of training, with TopK and Multi-TopK, and one for ReLU with L1 at several penalties; solid lines keep the largest latents, dashed lines those above one threshold."}, "figure": {"name": "fig-gao2024-test-time", "caption": "Error when another number of latents is kept than in training. Solid: TopK(k') at test time; dashed: one threshold with the same mean L0. The marker on a line is the number of latents that training used. Grey: the same rule on an untrained dictionary, and as many principal components. ReLU: one line per penalty, the palest the largest. Bands: lowest to highest seed. In the paper's Figure 10 the error of TopK falls until about k and then rises strongly, Multi-TopK falls throughout, and the dashed line leaves the solid one above k after TopK alone."}}
figures.test_time(points)
# %% [markdown]
# What to look for: a solid line with a minimum near its marker is a code that fits its own $k$ and nothing beyond (C23); one
# that keeps falling to four times the marker is progressive (C24); dashed above solid is the price of one threshold (C25).
#
# The paper adds, as far as is remembered, that the language model suffers less from too many latents than the error does:

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels, normalised mean squared error and rise in cross-entropy of the language model, at k and at four times k latents kept at test time, for TopK and Multi-TopK at each k of training."}, "figure": {"name": "fig-gao2024-test-time-downstream", "caption": "Error (left) and harm to the language model (right) when k and when 4k latents are kept at test time. Lines that rise to the right are made worse by more latents. Markers: mean over seeds; bands: lowest to highest seed. The paper publishes no number for this."}}
figures.test_time_downstream(codes.downstream_points(kept))
# %% [markdown]
# {download}`The table behind both figures <tables/gao2024-test-time.csv>`, one line per run, with lists over the multiples of
# $k$. Means over seeds, as far as four times $k$:

# %% tags=["remove-input"]
shown = points[(points.series != "relu") & points.multiple.isin([0.5, 1, 1.5, 2, 4])]
columns = {"l0_topk": "L0, TopK(k′)", "nmse_topk": "NMSE, TopK(k′)", "l0_jump": "L0, threshold"}
columns |= {"nmse_jump": "NMSE, threshold"}
pages.table_of(
    shown.rename(columns=columns | {"series": "trained as", "sparsity": "k", "multiple": "k′ / k"}),
    ["trained as", "k", "k′ / k"],
    [*columns.values(), "nmse_untrained", "nmse_pca"],
)

# %% [markdown]
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(gao2024.CLAIMS, ["C21", "C22", "C23", "C24", "C25"], preset)

# %% [markdown]
# What the rules take from these tables: ReLU is interpolated to the L0 of each TopK run in logarithms and never
# extrapolated; a claim is judged on the mean over settings with its interval over seeds, and is *partly* replicated where
# that holds but a single setting fails; runs with more than half of their latents dead count for nothing. The $k'$ that
# does best above $k$ (C23) is chosen on two seeds and judged on the third, each seed in turn: a minimum that is chosen and
# judged on the same numbers is too low by chance.
#
# The rules were fixed before these runs; the tolerances of C24 had been loosened after a toy run on synthetic data, which is
# no evidence about language models.
#
# ## What differs from the paper, and what this ran on
#
# Subject, dictionaries, tokens and learning rates differ as on {doc}`gao2024-frontier`, with whose autoencoders this page
# works; it trains only those with Multi-TopK, for the smallest $k$ (`cpu`: one, other presets: two). Details of the
# paper's Figures 8 and 10 are from memory: the method of the fit, the sizes, how the threshold was set. The fit is exact
# instead of by gradient descent. All numbers are for the largest dictionary of the preset. Runs are shorter than the
# paper's by orders of magnitude (`cpu`: 786,432 tokens), and what training does to one particular $k$ may need longer to
# appear.

# %% tags=["remove-input"]
pages.provenance(pd.concat([refined, kept]))
