# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Measuring autoencoders by norm: ZF plots
#
# {cite:t}`lee2025`, the evaluation of released autoencoders: ZF plots, the score $\varepsilon_{LBO}$, half-violins.
#
# A sparse autoencoder explains an activation $z \in \mathbb R^d$ by a code $f$ over $h > d$ directions. How good is it?
# One can decode and look at the error. {cite:t}`lee2025` look at something that needs no decoder: the *length* of the code.
# If $z = \sum_i f_i w_i$ with unit directions that are nearly orthogonal, then $\lVert f\rVert \approx \lVert z\rVert$. So
# $\lVert z\rVert$, known before any code is, says how much activation there should be (they call it *approximate feature
# activation*, AFA). A code that is longer *over-activates*, one that is shorter *under-activates*. The claims:
#
# - the autoencoders of language models mostly under-activate (**Z1**);
# - the norm of the code tracks that of the activation, over layers (**Z2**) and input by input (**Z3**);
# - a score built on the two norms measures something else than the reconstruction error (**Z4**) and finds fault with
#   other layers (**Z5**).
#
# The paper measures released autoencoders of GPT-2 small and Gemma 2B. This page trains three kinds on every residual
# layer of a small language model: ReLU with L1, the kind of the GPT-2 release; JumpReLU, that of Gemma Scope; and TopK.
# The released numbers stand beside ours in black.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
from replication import pages
from replication.figures import topafa_norms as figures
from replication.papers import topafa2025
from replication.papers.topafa2025 import norms

pages.open_page(preset)

# %% [markdown]
# ## What is measured
#
# Norms are taken on the scale of the language model's own activations, as in the authors' notebook: the constant that an
# autoencoder was trained with is folded into its weights, the norms of decoder rows into the code, and **$z$ is not
# centred**. The decoder's bias $b$ has to go somewhere. The notebook appends it to the code as *one more feature that is
# always on*, with coefficient $\lVert b\rVert$:
#
# $$
# \lVert f\rVert^2 = \sum_i f_i^2\, \lVert w_i\rVert^2 + \lVert b\rVert^2 .
# $$
#
# Every number of this page is also taken without that feature, from $z - b$ and the code alone, as a control. The function
# takes any autoencoder of this library, wherever its weights come from:
#
# ```{literalinclude} ../replication/evaluate/norms.py
# :pyobject: norms_of
# :caption: replication/evaluate/norms.py
# ```
#
# The score of a token is the least $\varepsilon = \max_{i \ne j} |\langle w_i, w_j\rangle|$ that a dictionary needs to explain
# $z$ by $f$:
#
# ```{literalinclude} ../replication/evaluate/norms.py
# :pyobject: eps_lower_bound
# :caption: replication/evaluate/norms.py
# ```
#
# Four things follow from the formula alone, before any data:
#
# 1. With $r = \lVert f\rVert / \lVert z\rVert$ it is $(h-1)\,\varepsilon_{LBO} = |1/r^2 - 1|$, a function of $r$ and nothing else.
#    This page reports $(h-1)\,\varepsilon_{LBO}$, which can be compared between dictionaries of different size.
# 2. **It is lopsided.** Over-activation costs less than 1 however large it is ($r = 2$: 0.75). Under-activation has no limit
#    ($r = 1/2$: 3).
# 3. **It does not look at the dictionary.** Only the lengths of decoder rows enter: shuffle the rows, which changes every
#    reconstruction, and $\varepsilon_{LBO}$ stays the same to the last digit.
# 4. **The bias feature sets a floor.** $\lVert f\rVert \ge \lVert b\rVert$ for every token. Appending it cannot change which of
#    two tokens has the longer code, but it pulls their lengths together.
#
# In a ZF plot each token is a point, $\lVert z\rVert$ to the right and $\lVert f\rVert$ up. The wedge of $c = \varepsilon(h-1)$ holds
# the points with $(h-1)\,\varepsilon_{LBO} \le c$; its edges have slopes $1/\sqrt{1+c}$ and $1/\sqrt{1-c}$.
#
# ## The ZF plot

# %% tags=["remove-cell"]
rows = pages.rows_of(norms.NORMS, preset, "topafa2025-norms")
placed = norms.with_depth(rows, "architecture")
released = norms.released()

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two lines of square scatter plots, a panel each for TopK, ReLU and JumpReLU: norm of the code against norm of the activation, coloured by layer, with a red dashed diagonal and three nested blue wedges around it; the upper line with the bias as a feature, the lower without."}, "figure": {"name": "fig-topafa2025-zf", "caption": "ZF plots of held-out tokens, first seed; at most 200 tokens per layer are drawn, all count elsewhere. Red: equal norms; points below it are under-activated. Blue: wedges for c = 0.25, 0.5 and 1; from c = 1 on the code has no upper limit. Upper line: as in the paper, with the bias as one more feature and z raw. Lower line: the code alone against z - b."}}
figures.zf_plot(rows, norms.slopes())
# %% [markdown]
# {download}`The table behind the figures of this page <tables/topafa2025-norms.csv>`, one line per autoencoder, with the points
# and quantiles that are drawn. In the next figure all layers are put on one axis, so that ours and the released ones can be
# compared in spite of their different norms.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels over the depth of a layer: median ratio of code norm to activation norm with the bias as a feature, the same without the bias, and the share of tokens whose code is longer than the activation; coloured lines for our three kinds, black lines for the released ones, grey lines for controls."}, "figure": {"name": "fig-topafa2025-ratios", "caption": "Left: median of r over tokens, with the wedges as blue bands; black: medians computed from the released files. Middle: the same without the bias feature and with z centred by the bias, for which nothing is released. Right: share of tokens with r > 1; thin grey line: 25 %, the limit of Z1. Dotted: the autoencoders before training; dashed: each activation with the code of another token of its layer (both means over kinds). Bands: lowest to highest seed."}}
figures.ratios(placed, released, norms.slopes())
# %% [markdown]
# Why a code should be as long as the activation at all, and why it need not be: for *random* unit directions the cross terms
# of $\lVert\sum_i f_i w_i\rVert^2$ cancel on average, so that the two norms agree within about $\sqrt{2/d}$ whatever $h$ is. Directions
# that are active *together* and point the same way do not cancel. A dictionary of correlated features therefore needs less
# code than orthogonality predicts, without being wrong. {doc}`topafa2025-theory` has the bound and this average case.
#
# In the released models, over-activation is a matter of the first layers: 27 % of tokens in layer 2 of GPT-2 small, 71 % and
# 28 % in layers 1 and 2 of Gemma Scope. The fewer layers a model has, the more such a front weighs in Z1.
#
# The dashed control asks how much of a match is the match of a *token* with its own code. A layer in which all norms are
# alike puts every point near the diagonal, even with codes dealt out at random.
#
# ## Per layer

# %% tags=["remove-input"]
columns = ["l0", "fvu", "z", "f", "bias", "r", "over", "gap", "token_nmse"]
pages.table_of(rows, ["architecture", "layer"], columns)

# %% [markdown]
# Layer 1 is the residual stream in front of the first block. *z* and *f* are medians of $\lVert z\rVert$ and $\lVert f\rVert$, *bias*
# is $\lVert b\rVert$, *r* the median ratio, *over* the share of tokens with $r > 1$, *gap* the median of
# $(h-1)\,\varepsilon_{LBO}$, and *token_nmse* the median of $\lVert z - \hat z\rVert^2 / \lVert z\rVert^2$, raw and uncentred as in the paper:
# predicting zero gives 1.
#
# ## What a gap is made of
#
# The score compares with $z$, not with the reconstruction $\hat z$. So it mixes two things:
#
# $$
# \lVert z\rVert^2 - \lVert f\rVert^2 = \big(\lVert\hat z\rVert^2 - \lVert f\rVert^2\big) + \big(\lVert z\rVert^2 - \lVert\hat z\rVert^2\big) .
# $$
#
# The first bracket is the *interference* of the active directions, which is what quasi-orthogonality is about. The second is
# the *shrinkage* of the reconstruction, an error. An L1 penalty shrinks codes on purpose, which by itself moves points below
# the diagonal, whatever the directions are.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels over the depth of a layer: median interference, median shrinkage and the median size of their sum in units of the squared code norm; coloured lines for our three kinds, black lines for the released ones, and a grey dashed line for a dictionary with shuffled rows."}, "figure": {"name": "fig-topafa2025-gap", "caption": "Medians over tokens of the two parts, in units of the squared norm of the code, and of (h - 1) eps_LBO. Black: computed from the released files. Grey, dashed: the same codes with the rows of the dictionary in a random order (mean over kinds): the parts change, their sum does not, since the score does not look at the dictionary. Bands: lowest to highest seed."}}
figures.gap_parts(placed, released)
# %% [markdown]
# ## Does the code track the activation?
#
# Over all layers of a model the released norms are almost perfectly correlated. But norms in a residual stream usually grow
# with depth, and any code that reconstructs grows along. What is left when the scale of layers is taken out is the correlation
# *within* a layer. The law of total covariance gives both from one table, and also what would be left of the pooled
# correlation if every token had the code of another token of its layer:
#
# ```{literalinclude} ../replication/papers/topafa2025/norms.py
# :pyobject: pooled
# :caption: replication/papers/topafa2025/norms.py
# ```

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels, with and without the bias as a feature: correlation of the norms of activation and code within a layer over the depth of the layer, and at the right edge diamonds for the correlation pooled over layers, filled, and with codes of other tokens, hollow."}, "figure": {"name": "fig-topafa2025-correlations", "caption": "Pearson correlation of the two norms: lines, over the tokens of one layer; filled diamonds, over those of all layers; hollow diamonds, the same if codes were dealt out at random inside each layer. The released models have 0.979 and 0.978 pooled. Dotted: before training, mean over kinds. Bands: lowest to highest seed."}}
figures.correlations(placed, released, norms.pooled_correlations(rows))
# %% [markdown]
# In the last layers of GPT-2 the released codes have a hard floor: the shortest of 1,000 has 93 % of the median length in
# layer 11 and 96 % in layer 12, and lengths are hardly correlated with those of the activations. A floor is what an appended
# bias makes (point 4 above), so that most of the plotted length there may be a constant. This is a reading, not a fact: the
# release does not contain $\lVert b\rVert$. Ours stands beside *f* in the table of layers.
#
# Dropping the feature alone can do little for a correlation, since it leaves the order of the tokens as it is. What may is
# to take the bias out on *both* sides: $\lVert z\rVert$ contains it as well, along one direction that says nothing about the token. The table
# has all three, *corr* with the bias feature, *corr_no_bias* with $\lVert z\rVert$ raw and the feature dropped, *centred_corr* with
# $\lVert z - b\rVert$, and the control *untrained_corr*, the paper's view before the first step:

# %% tags=["remove-input"]
pages.table_of(rows, ["architecture", "layer"], ["corr", "corr_no_bias", "centred_corr", "untrained_corr"])

# %% [markdown]
# A single position can make a correlation, too. In many language models the first token of a context has a norm far from
# all others. The paper never sees it, because it takes the last token of each sequence; here the first position is left
# out of training and of every number except those of this table (TopK): its share of the tokens, its median norm beside
# that of the others, $r$ there, and the correlation within the layer without it and with it.

# %% tags=["remove-input"]
firsts = ["first_share", "first_z", "z", "first_r", "r", "corr", "first_corr"]
pages.table_of(rows[rows.architecture == "topk"], ["layer"], firsts)

# %% [markdown]
# ## The score beside the error
#
# The two are no strangers. Where the error is orthogonal to the reconstruction, as for a best fit, the shrinkage is the error
# itself, and
#
# $$
# (h-1)\,\varepsilon_{LBO} = \Big|\,\frac{\lVert\hat z\rVert^2 - \lVert f\rVert^2}{\lVert f\rVert^2} + \frac{\mathrm{NMSE}}{r^2}\,\Big| .
# $$
#
# With little interference the score of a token *is* its error, up to $r^2$; with much of it, the score goes its own way. Which
# of the two holds in a layer is in the figure of interference and shrinkage above.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Half-violins for each layer, a panel for each of TopK, ReLU and JumpReLU: left halves in blue the normalised error of tokens, right halves in orange the score, each with a dot at the median, a bar for the quartiles, and the words best and worst above two layers."}, "figure": {"name": "fig-topafa2025-violins", "caption": "The paper's half-violins for ours, first seed: normalised squared error (blue, left axis) and score (orange, right axis) of held-out tokens, clipped at the 99 % quantile over all layers. Dots: medians; bars: quartiles; best and worst: the layers with the lowest and highest median. Drawn from 100 quantiles per layer."}}
figures.half_violins(rows)
# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: Spearman correlation of error and score over the tokens of a layer against depth, with a grey band from -0.3 to 0.3 and black lines for the released means. Right: median score against median error of layers, joined in the order of layers, with the worst layers marked by triangles."}, "figure": {"name": "fig-topafa2025-scores", "caption": "Left: rank correlation of error and score over the tokens of one layer; grey band: the limit of Z4; black: released means over layers. Right: medians of layers, joined in their order, one line per kind (mean over seeds) or released model. Triangles: the worst layer by each score. Bands: lowest to highest seed."}}
figures.scores(placed, released, norms.RELEASED_SPEARMAN)
# %% [markdown]
# That two scores differ does not say that the new one adds anything. A score can be unrelated to the error because it
# measures another virtue, or because it measures something that is none. Which of the two it is cannot be seen on a
# language model, whose true features nobody knows; {doc}`topafa2025-truth` asks it where they are known.
#
# ## Released and ours

# %% tags=["remove-input"]
pages.shown(norms.summary(rows))

# %% [markdown]
# Shares and medians are over the tokens of all layers, ± half the range over seeds. *Other tokens' codes*: pooled, with the
# codes of a layer dealt out at random. *Scores*: Spearman correlation of NMSE and $\varepsilon_{LBO}$. The released columns were
# computed from the CSV files beside the authors' ZF plots, 1,000 tokens per layer, not read off the paper. The *Welch bound*
# $\sqrt{(h-d)/(d(h-1))}$ is the least $\varepsilon$ that $h$ directions in $d$ dimensions can have. A score far below it is no
# evidence that directions are that close to orthogonal, since they cannot be: it only says that the two norms agree better
# than the worst case would allow.
#
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(topafa2025.CLAIMS, ["Z1", "Z2", "Z3", "Z4", "Z5"], preset)

# %% [markdown]
# Z5 is a weak test. Two rankings of a handful of layers that have nothing to do with each other nearly always have different
# worst layers; the finding says how often. And seeds of one language model are no independent draws of layers.
#
# ## What differs from the paper, and what this ran on
#
# The text of the paper was not at hand: definitions are those of the released notebooks, numbers are computed from the
# released files. Unless the page was built with the `paper` preset, the subject is a small language model of Python source
# with few layers; dictionaries have some thousand latents at most and see far fewer tokens than the released ones. The
# authors' three quantities are the same here: $z$ raw, the bias as a feature, $h$ without it. They take 1,000 sequences and
# the last of 128 tokens of each; here every held-out token after the first of its context counts. JumpReLU was trained
# towards the L0 of TopK, not with a fixed weight of its penalty, so that both are compared at about equal L0; ReLU has one
# $\lambda$ for all layers, and its L0 is what comes out. Training inputs of each layer were divided by one constant. Intervals
# are Student's $t$ over seeds, which draw the initial weights and the order of the data.

# %% tags=["remove-input"]
pages.provenance(rows)
