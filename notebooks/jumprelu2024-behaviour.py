# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # How the latents behave
#
# {cite:t}`rajamanoharan2024jumprelu`, Figures 5 and 6 and section 5.3; {cite:t}`lieberum2024`, Figures 3, 15 and 16.
#
# L0 and the error say how many latents are active and how well they add up. They do not say *which* latents: a few that are
# always on or many that are rarely on, latents that a reader can name or latents that nobody can, one latent that decides the
# prediction or fifty that share it. This page looks at the latents themselves:
#
# - JumpReLU and TopK have more very frequent latents than Gated, though few in all (**J6**);
# - the very frequent ones are less interpretable (**J7**);
# - otherwise the latents of JumpReLU are as interpretable as those of TopK (**J8**);
# - the first tokens of a context are the easiest to reconstruct, in a way that differs between sites (**G4**);
# - the more latents are active, the more diffuse is their effect on the prediction (**G10**).
#
# No autoencoder is trained for this page alone. Those that compare architectures are the longest runs of
# {doc}`jumprelu2024-frontier` at the residual stream of three layers; figures draw the middle one, claims look at all. Those that
# compare sites belong to the suite of {doc}`jumprelu2024-scope`.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
import pandas as pd

from replication import pages
from replication.figures import jumprelu_behaviour as figures
from replication.papers import jumprelu2024
from replication.papers.jumprelu2024 import behaviour
from replication.papers.jumprelu2024.grid import with_place

pages.open_page(preset)

# %% tags=["remove-cell"]
rows = pages.rows_of(behaviour.TYPES_STUDY, preset, "jumprelu2024-behaviour-types")
middle = behaviour.middle_layer(rows)
sites = pages.rows_of(behaviour.SITES_STUDY, preset, "jumprelu2024-behaviour-sites")

# %% [markdown]
# ## Latents that are almost always on
#
# A penalty on L0 charges $\lambda$ for every active latent of every token. Its mean over tokens is $\lambda$ times the sum of
# the latents' frequencies $p_i$, so that a latent with $p_i = 0.5$ costs as much as fifty with $p_i = 0.01$: L0 sees the mean of the
# frequencies and is blind to how they are spread. TopK, which fixes the number of active latents, is as blind. The L1 penalty
# of Gated is not: it charges a frequent latent for the size of its gate as well. (A later update of the JumpReLU authors adds
# a term that grows with $p_i^2$ for this reason.)
#
# The paper finds more latents above 10 % with JumpReLU and TopK than with Gated, and never more than 0.06 % of 131,072. A
# dictionary of a few hundred latents cannot be held to that share. With the `cpu` preset $M = 512$, and at L0 = 50 the *mean*
# frequency is $L0/M = 10\,\%$ already. So numbers of latents are compared, architecture against architecture at equal L0;
# whether there are "few" is asked only where the mean frequency is far below the bar; and at the right end of the next figure
# "above 10 %" says little more than "above the mean".

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels: number of latents active on more than ten per cent and on more than one per cent of the tokens against L0, a line each for JumpReLU, TopK and Gated, a dotted grey line for the largest number that L0 allows, and a dashed black line at 79."}, "figure": {"name": "fig-jumprelu2024-frequent", "caption": "Very frequent latents (after Figure 5 of the JumpReLU paper), middle layer. Bands: lowest to highest seed. Dotted: as many as an SAE of this L0 can have, L0 / 10 % and L0 / 1 %. Dashed: the most that the paper saw in a dictionary 256 times as wide as that of the cpu preset; it is drawn for scale."}}
figures.frequent(middle, behaviour.AS_MANY)
# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-behaviour-types.csv>`. The whole distribution says more than
# two counts. A latent that is never active is not in it.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels, for JumpReLU, TopK and Gated: histograms of the share of tokens on which a latent is active, on a logarithmic axis, one outline per L0, darker for larger L0, with a dotted line at ten per cent."}, "figure": {"name": "fig-jumprelu2024-behaviour-histograms", "caption": "How often latents are active on held-out tokens, mean over seeds; one outline per setting of the dial, darker for larger L0. Dotted: a tenth of the tokens. The areas are equal but for latents that never fire; larger L0 means further right."}}
figures.histograms(behaviour.histograms(middle))
# %% tags=["remove-input"]
pages.table_of(
    with_place(rows), ["layer", "architecture", "sparsity"], ["l0", "above_0.1", "above_0.01", "live", "dead"]
)

# %% [markdown]
# ## Can the latents be read?
#
# The paper asked people, and a language model that explained each latent in words and then *simulated* it from the
# explanation; the score is the correlation of simulated and true activations. Neither is possible here. What remains is the
# simplest explanation of all, "this latent is about the token that stands here", simulated by the mean of the latent on that
# token in one half of the held-out text and judged on the other half:
#
# ```{literalinclude} ../replication/evaluate/behaviour.py
# :pyobject: token_scores
# :caption: replication/evaluate/behaviour.py
# ```
#
# It is a **proxy**, and a crude one: a latent about "the argument after a keyword" is perfectly readable and scores low. On the
# other hand the score does not depend on frequency by construction, as a share of the most common token would: a latent that
# is on for every bracket and nowhere else scores 1, however many brackets there are.
#
# Its two controls are needed. With the tokens in a random order nothing can be predicted. And a latent that was never trained
# need not be near 0: where activations depend much on the token, any direction in them does, by how much may depend on how
# much of it is cut off. So the second control takes the SAE before its first step and gives every latent a threshold that
# makes it as frequent as its trained self:
#
# ```{literalinclude} ../replication/evaluate/behaviour.py
# :pyobject: at_frequencies
# :caption: replication/evaluate/behaviour.py
# ```

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels, for JumpReLU, TopK and Gated: mean score against the share of tokens on which latents are active, on a logarithmic axis, one line per L0, darker for larger L0, with grey lines for permuted tokens near zero and for untrained directions of equal frequency."}, "figure": {"name": "fig-jumprelu2024-score-frequency", "caption": "Score against frequency: means over the latents in a bin (four bins in a factor of ten, bins of three latents or more), then over seeds; the darker, the larger L0. Grey: the controls, mean over dials and seeds. Dotted vertical line: a tenth of the tokens."}}
figures.score_by_frequency(behaviour.by_frequency(middle))
# %% [markdown]
# J7 is about the left panel: does the line of JumpReLU fall to the right, and does it come closer to the control?
# Each line mixes latents of one SAE only, so that a difference between SAEs of different L0 cannot look like a trend in
# frequency. For J8 the latents of an SAE are counted
# together; the paper's regression asks for a score above 0.9.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels against L0: the mean score of the latents and the share of latents that score above 0.9, a line each for JumpReLU, TopK and Gated, with grey lines for permuted tokens and for untrained directions of equal frequency."}, "figure": {"name": "fig-jumprelu2024-scores", "caption": "Scores by architecture. Left: mean over the latents that can be scored; right: share of them that score above 0.9, which is what the odds ratio of J8 is about. Bands: lowest to highest seed. Grey: controls."}}
figures.scores(middle)
# %% tags=["remove-input"]
pages.table_of(
    with_place(rows).astype({name: float for name in ("spearman", "spearman_untrained", "spearman_gain")}),
    ["layer", "architecture", "sparsity"],
    ["l0", "scored", "interpretable", "score", "score_untrained", "spearman", "spearman_untrained", "spearman_gain"],
)

# %% [markdown]
# *scored* counts the latents that are active on ten tokens of either half; *interpretable* those of them above 0.9;
# *spearman* is the rank correlation of frequency and score within an SAE, *spearman_untrained* the same for the control, and
# *spearman_gain* that of frequency and the score above the control.
#
# ## Where in the context?
#
# A token near the start has seen little, and its activation can say little. {cite:t}`lieberum2024` find that the
# reconstruction error is near 0 for the first tokens of a context; at attention it then rises to a plateau within about 100
# tokens, at the residual stream more slowly, and at the MLP it peaks near the tenth token. Here the context has 64 tokens and
# there is no BOS token: the first position takes its role. Like BOS in the paper it is left out, and kept as it is where reconstructions are put into the language model.
#
# Two curves stand beside the error. The variance of the activations at a position says how much there is to explain: an error
# may be small because there is little. And the rise in the language model's loss says what the error does.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels against the position in the context on a logarithmic axis: reconstruction error, error over the variance at that position, and rise in cross-entropy, a line each for attention heads, MLP output and residual stream."}, "figure": {"name": "fig-jumprelu2024-positions", "caption": "By position (after Figures 3 and 15 of Gemma Scope), JumpReLU at the middle lambda, one layer. Left: squared error for inputs with E|x|^2 = 1. Middle: the same over the variance at that position. Right: rise in cross-entropy of the prediction made there. Position 0 is left out. Bands: lowest to highest seed; all seeds share the held-out text, so that what they share of its noise is not in the band."}}
figures.positions(behaviour.curves(sites))
# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-behaviour-sites.csv>`.
#
# ## Who decides the prediction?
#
# Let $m$ be the logit of the correct next token minus the mean logit. To first order, an active latent contributes
# $y_i = f_i\,(d_i\cdot\nabla_x m)$ to it. With $p_i = |y_i| / \sum_j |y_j|$,
#
# $$
# S(p) = -\sum_i p_i\ln p_i, \qquad
# r_{L0} = \frac{e^{S}}{\lVert y\rVert_0} = e^{-D_{KL}(p\,\Vert\,u)},
# $$
#
# where $e^S$ is the effective number of active latents and $u$ is uniform over the active latents. So $1/L0 \le r_{L0} \le 1$: at the lower end one latent does everything, at the
# upper end all do the same.
#
# ```{literalinclude} ../replication/evaluate/behaviour.py
# :pyobject: uniformity
# :caption: replication/evaluate/behaviour.py
# ```
#
# Two things are open. The paper does not say whether the gradient is taken at $x$ or at $\hat x$, so both are measured, on one
# token in each of up to 512 contexts. And "more diffuse with more active latents" can mean a growing $e^S$, which more active
# latents almost force, or a growing $r_{L0}$, which they do not: since $\ln r_{L0} = \ln e^S - \ln L0$, the ratio rises exactly
# where $\ln e^S$ has a slope above 1 in $\ln L0$. The page reports both slopes with their intervals.
#
# The control asks whether the gradient matters at all: it is exchanged for that of another token, which knows nothing of this
# prediction. What remains is how evenly the *activations* are spread, with random weights on them.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels against L0: effective number of active latents and its ratio to L0, coloured lines for JumpReLU, TopK and Gated, solid with the gradient at x and dashed with that at the reconstruction, grey dotted lines with the gradient of another token, and a grey band from 0.45 to 0.70 on the right."}, "figure": {"name": "fig-jumprelu2024-uniformity-types", "caption": "Uniformity by architecture at the residual stream (after Figure 6 of the JumpReLU paper). Solid: gradient at x; dashed: at the reconstruction; grey, dotted: the control, the gradient of another token. The grey band is the range of the axis of Gemma Scope's Figure 16, not a result."}}
figures.uniformity_by_type(middle, behaviour.PUBLISHED_RATIO)
# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels against L0: effective number of active latents and its ratio to L0, coloured lines for attention heads, MLP output and residual stream, solid with the gradient at x and dashed with that at the reconstruction, grey dotted lines with the gradient of another token."}, "figure": {"name": "fig-jumprelu2024-uniformity-sites", "caption": "The same for JumpReLU at the three sites of one layer (after Figure 16 of Gemma Scope), which are what G10 compares."}}
figures.uniformity_by_site(with_place(sites), behaviour.PUBLISHED_RATIO)
# %% tags=["remove-input"]
pages.table_of(behaviour.slopes(sites), ["site", "side"], ["effective", "ratio"])

# %% [markdown]
# Slopes of $\ln e^S$ (*effective*) and of $r_{L0}$ (*ratio*) on $\ln L0$, one per seed; *side* says where the gradient is taken.
#
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(jumprelu2024.CLAIMS, ["J6", "J7", "J8", "G4", "G10"], preset)

# %% [markdown]
# ## What differs from the papers, and what this ran on
#
# Of the JumpReLU paper these figures and the regression are known from quotations, reviews and notes, not from its text:
# J6, J7 and J8 test statements. Dictionaries are small, which moves every frequency up; architectures are compared at the
# residual stream with three or four settings of the dial, Gated in its variant with a free decoder norm (RI-L1); with `cpu` the
# middle layer has four times the training tokens of the other two. Frequencies
# are taken on tens of thousands of held-out tokens instead of 20 million. Scores stand in for ratings and for explanations by a
# language model, which are out of reach here; latents too rare to be scored are left out, as rare ones were in the paper. The
# regression has $\ln L0$ and the layer where the paper has site and layer. The context has 64 tokens instead of 1,024, so that "5 % of the
# context" is three tokens; it begins anywhere in a file, not at the beginning of a text behind a BOS token, and its last
# position has no prediction. The mean over tokens is of $r_{L0}$ and of $e^S$ themselves.
# Intervals are Student's $t$ over three seeds, which draw weights and the order of the training tokens; the held-out text is
# the same for all.

# %% tags=["remove-input"]
pages.provenance(pd.concat([rows, sites]))
