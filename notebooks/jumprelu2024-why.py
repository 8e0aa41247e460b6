# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Why it trains
#
# {cite:t}`rajamanoharan2024jumprelu`, sections 3 and 4, with the training recipe of {cite:t}`lieberum2024`.
#
# A JumpReLU autoencoder gives every latent a threshold $\theta_i > 0$ and lets a pre-activation through, unchanged, where it
# is larger. Its loss counts the active latents outright:
#
# $$
# z = \pi\, H(\pi - \theta), \qquad
# \mathcal L = \mathbb E\lVert x-\hat x\rVert^2 + \lambda\,\mathbb E\lVert z\rVert_0 , \qquad \pi = (x - b_{dec})\,W_{enc} + b_{enc}.
# $$
#
# Both terms are piecewise constant in $\theta$: the derivative on any one sample is zero almost everywhere. The paper's
# contribution is a way to train $\theta$ all the same, and an argument that it is no trick but an estimate of the right
# gradient. This page takes the argument apart on problems that are small enough to know the answer:
#
# - the pseudo-derivatives are a kernel density estimate of the gradient of the expected loss (**J1**);
# - letting them into the pre-activations as well does harm (**J9**);
# - the shape of the kernel hardly matters (**J10**), its width does (**J11**);
# - a loss with a target for the number of active latents works as well (**J12**).

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
import pandas as pd

from replication import pages
from replication.figures import jumprelu_why as figures
from replication.papers import jumprelu2024
from replication.papers.jumprelu2024 import why

pages.open_page(preset)

# %% [markdown]
# ## Why a jump
#
# Take data whose causes are known: sums of unit *atoms* with positive codes, a little noise, $\mathbb E\lVert x\rVert^2 = 1$.
# Read one atom's code by its own direction. Where the atom is absent, the other atoms and the noise still give a
# pre-activation; where it is present they blur it. The paper's first figure is a drawing of this situation; here it is with
# measured densities:

# %% tags=["remove-cell"]
picture = pages.rows_of(why.PICTURE, preset, "jumprelu2024-picture")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Four panels: densities of a pre-activation where its atom is absent, a tall hill around zero, and where it is present, a lower hill to the right; then the same densities under the graphs of ReLU, of ReLU with a lowered bias and of JumpReLU."}, "figure": {"name": "fig-jumprelu2024-sketch", "caption": "One pre-activation and what three rules make of it (after the paper's Figure 1, with toy data instead of a drawing). ReLU lets false positives through; lowering its bias screens them, and shortens every true activation by the same amount; JumpReLU screens as many and shortens nothing. Dotted: the threshold at which JumpReLU has the least squared error, used for all three. First seed."}}
figures.sketch(picture)
# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-picture.csv>`. Means over seeds; *false* is the share of samples
# without the atom that get a latent, *magnitude* the size of the latents that the others get, over the true one, and *error*
# the squared error over that of answering 0:

# %% tags=["remove-input"]
pages.table_of(why.screened(picture), ["rule"], ["false", "magnitude", "error"])

# %% [markdown]
# ## Pseudo-derivatives
#
# For a kernel $K$ of integral 1, the paper a rectangle, and a *bandwidth* $\varepsilon$, the backward pass pretends that
#
# $$
# \frac{\partial}{\partial\theta}\,\pi H(\pi-\theta) := -\frac{\theta}{\varepsilon}\,K\!\Big(\frac{\pi-\theta}{\varepsilon}\Big),
# \qquad
# \frac{\partial}{\partial\theta}\,H(\pi-\theta) := -\frac{1}{\varepsilon}\,K\!\Big(\frac{\pi-\theta}{\varepsilon}\Big).
# $$
#
# Only samples inside a window of width $\varepsilon$ around $\theta$ move it. To the pre-activation goes the ordinary
# derivative, $H(\pi-\theta)$ from the error and 0 from the count. So $\lambda$ trains the thresholds and nothing else; the
# encoder and the decoder see the error alone.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left and middle: JumpReLU and the step function of a pre-activation, with a pseudo-derivative that is zero except for a negative box around the threshold. Right: four kernels of the same variance."}, "figure": {"name": "fig-jumprelu2024-estimators", "caption": "JumpReLU, the step function and their pseudo-derivatives in theta (the paper's Figure 3), drawn by the library's own backward pass. Right: the four kernels of this page, each at the bandwidth that gives it the rectangle's variance."}}
figures.estimators(why.estimators())
# %% [markdown]
# ```{literalinclude} ../replication/sae/jumprelu.py
# :pyobject: _JumpReLU
# :caption: replication/sae/jumprelu.py
# ```
#
# ## What they estimate
#
# The *expected* loss is smooth in $\theta$, because pre-activations have a density $p_i$. Raising $\theta_i$ by a little turns
# the latent off for the samples just above it. Each of them saves $\lambda$ and changes the squared error, so that
#
# $$
# \frac{\partial\,\mathbb E[\mathcal L]}{\partial\theta_i} =
# \Big(\mathbb E\big[\,I_i(x)\,\big|\,\pi_i(x) = \theta_i\,\big] - \lambda\Big)\;p_i(\theta_i), \qquad
# I_i(x) = 2\,\theta_i\, d_i\cdot(x - \hat x).
# $$
#
# A density and a conditional mean at a point can be estimated by averaging over a window around the point:
# $\frac{1}{N\varepsilon}\sum_a (I_i(x_a) - \lambda)\,K\big((\pi_i(x_a) - \theta_i)/\varepsilon\big)$. That is, term by term,
# what automatic differentiation makes of the two pseudo-derivatives. $I_i$ is what the latent is worth: where it exceeds the
# price $\lambda$ the threshold falls and lets more through, otherwise it rises.
#
# One detail decides whether this is right. Half of the window lies below $\theta$, where the latent is off and the residual is
# still long; the other half lies above, where it is on. With residual $r$ above, the two sides are worth $2\theta d\cdot r$ and
# $2\theta d\cdot(r + \theta d)$, and their mean is $2\theta d\cdot r + \theta^2$: precisely the change of the squared error at
# the jump, for a row $d$ of unit norm. Neither side alone is.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: density of a pre-activation with a shaded window around the threshold. Right: the mean worth of the latent over the pre-activation, a curve for the latent off and a lower one for the latent on, with a dot half way between them at the threshold and a dashed line for lambda."}, "figure": {"name": "fig-jumprelu2024-window", "caption": "The kernel estimate, seen on one latent of an autoencoder that has the true atoms, first seed. Left: only the samples in the window count; there are about N e p(theta) of them. Right: the mean of I given the pre-activation, which jumps at theta. The dot is the mean of both sides; theta falls where it lies above lambda, and rises where it lies below."}}
figures.window(picture)
# %% [markdown]
# ## Is it the gradient?
#
# An autoencoder with $n = 8$, $M = 16$ is held fixed. Its expected loss is evaluated at $\theta_i \pm 0.01$ on one large
# sample, which gives the gradient by a central difference and needs no pseudo-derivative. The training code's gradient is
# taken on another sample, at five bandwidths:
#
# ```{literalinclude} ../replication/papers/jumprelu2024/why.py
# :pyobject: finite_difference
# :caption: replication/papers/jumprelu2024/why.py
# ```
#
# A check that nothing could fail would say little. So the same comparison is made with an estimator known to be wrong: the
# trainer of the library dictionary_learning 0.1.0 applies the step function to the latents, after the jump, instead of to
# the pre-activations. Samples below the threshold are then zeros, far outside the window; half of it is empty, and
# $\lambda$ counts half.

# %% tags=["remove-cell"]
gradients = pages.rows_of(why.GRADIENTS, preset, "jumprelu2024-gradients")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: relative error of the gradient against the bandwidth on logarithmic axes, one line for the right estimator and one for the control whose step function reads the latents after the jump, with crosses of an earlier check. Right: pseudo-derivative against finite difference for every latent, around a diagonal line."}, "figure": {"name": "fig-jumprelu2024-gradient", "caption": "Left: distance between pseudo-derivative and finite difference, relative to the latter, over all latents. Band: lowest to highest seed. Dotted: the noise of the finite difference, below which nothing can be seen. Crosses: a check made before for this replication, with another fixed autoencoder, one latent and four times the samples. Right: single latents of all seeds at the smallest bandwidth; the line is equality."}}
figures.gradient(gradients, why.EARLIER)
# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-gradients.csv>`. A bias that grows with the bandwidth is what
# a kernel estimate has to show; the price of a narrow window is that few samples are in it (*in_window* is the least
# over latents):

# %% tags=["remove-input"]
step = gradients.after_jump.map({False: "pre-activations", True: "latents, after the jump"})
columns = ["relative_error", "noise", "in_window", "theta_min"]
pages.table_of(gradients.assign(**{"step of": step}), ["step of", "bandwidth"], columns)

# %% [markdown]
# ## How far a threshold can travel
#
# A right gradient is not yet a trained threshold. Adam divides the gradient by its own size and moves a parameter by about
# one learning rate per step, whatever $\lambda$ is. Two consequences, for $T$ steps at rate $\eta$:
#
# - a *raw* $\theta$ travels by about $\eta T$ at most; a threshold kept as $\ln\theta$, as DeepMind's training code does so that
#   it stays positive, is multiplied by about $e^{\eta T}$ at most. With the paper's $\eta = 7\cdot10^{-5}$ and a million steps both
#   are as good as free. After 5,000 steps the raw one has 0.35, which is plenty for inputs of unit norm, and the
#   logarithmic one a factor of 1.4, which is nothing;
# - once $\lambda$ outweighs the error everywhere, it sets only the *direction*, and a larger one changes little. A flat response
#   of L0 to $\lambda$ means saturation, and the useful values lie below.
#
# Which of the two forms the paper's own runs used is not settled: its pseudo-code is remembered both ways. The runs below
# start from one threshold and differ in the form and in the rate. They are short trainings on the toy data, on
# which every comparison in the rest of this page is made too:
#
# ```{literalinclude} ../replication/papers/jumprelu2024/why.py
# :pyobject: Toy
# :end-before: "def __post_init__"
# :caption: replication/papers/jumprelu2024/why.py
# ```

# %% tags=["remove-cell"]
rows = pages.rows_of(why.REACH, preset, "jumprelu2024-reach")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: L0 against lambda over decades on logarithmic axes, one line for each form of the threshold and learning rate, with black crosses of a published report that fall and then stay flat. Right: the 90th percentile of the thresholds against lambda, with thin horizontal lines at the reach of each setting."}, "figure": {"name": "fig-jumprelu2024-reach", "caption": "Left: L0 against lambda. Crosses: a report by users of the library SAELens on another subject (rate 0.0003, bandwidth 0.05, 2,000 steps, L0 478 without a penalty): a reference for the shape, not for the height. Right: where thresholds end. Thin lines of the same colour and dash: start plus rate times steps, or start times its exponential. Bands: lowest to highest seed."}}
figures.reach(why.reach(rows), why.SATURATION)
# %% tags=["remove-input"]
reached = why.reach(rows)
form = reached.log_threshold.map({False: "raw", True: "log"})
columns = ["l0", "nmse", "dead", "theta_50", "theta_max", "limit"]
pages.table_of(
    reached.assign(threshold=form, rate=reached.lr, **{"λ": reached.sparsity}), ["threshold", "rate", "λ"], columns
)

# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-reach.csv>`. *theta_50* and *theta_max* are the median and the
# largest threshold at the end, *limit* the reach at one rate per step. It is no strict bound: with $\beta_1 = 0$ a step is
# longer than the rate wherever a gradient exceeds its running mean square, as it does while it grows. Where a raw threshold has the reach to leave all pre-activations behind, a large $\lambda$ does
# not level off but empties the autoencoder.
#
# ## The width of the window
#
# Gemma Scope says in a footnote what a bad bandwidth does: if it is large, estimates are biased, and autoencoders sparse but
# less faithful; if it is small, estimates are noisy and thresholds do not train. All runs below start at
# $\theta = 0.02$, except in the `paper` preset.

# %% tags=["remove-cell"]
rows = pages.rows_of(why.BANDWIDTH, preset, "jumprelu2024-bandwidth")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels: L0 against the bandwidth at fixed lambda, the median threshold over its start against the bandwidth, and normalised error against L0 with a grey reference line and one marker colour per bandwidth."}, "figure": {"name": "fig-jumprelu2024-bandwidth", "caption": "Left: L0 at fixed lambda. Middle: travel of the thresholds, median over latents, thin bars from the 10th to the 90th percentile. Right: error at equal L0; the grey line is the sweep of lambda at the reference bandwidth, and a marker above it is worse. Bands: lowest to highest seed. The papers give no numbers."}}
figures.bandwidth(why.with_settings(rows))
# %% tags=["remove-input"]
pages.table_of(
    why.with_settings(rows),
    ["bandwidth", "sparsity"],
    ["l0", "nmse", "nmse_untrained", "nmse_pca", "dead", "theta_50", "dictionary_cosine", "cosine_untrained"],
)

# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-bandwidth.csv>`. Two controls stand beside the error: the same
# autoencoder before its first step, which has far more active latents, and as many principal components as there are active
# latents. *dictionary_cosine* says how much of the truth the dictionary holds (mean cosine of matched atoms and rows),
# *cosine_untrained* what chance gives.
#
# ## The shape of the kernel
#
# Kernels are compared at equal *variance*, $\int u^2K(u)\,du$ times the bandwidth squared; at equal bandwidth a Gaussian's
# window would be three and a half times as wide as the rectangle's, and the comparison one of widths.
# Errors are compared at equal L0, $g$ being the logarithm of their ratio: the reference is interpolated, never extrapolated.

# %% tags=["remove-cell"]
kernels = pages.rows_of(why.KERNEL_SHAPES, preset, "jumprelu2024-kernels")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: normalised error against L0, a grey line for the rectangle and markers for the triangle, the Gaussian and the Epanechnikov kernel. Right: logarithm of the error ratio at equal L0 for every run, with a grey band of five per cent around zero."}, "figure": {"name": "fig-jumprelu2024-kernels", "caption": "Other kernels against the rectangle (grey) of the same variance. Left: error against L0, mean over seeds. Right: g of every run; the band is where J10 calls kernels equal. The paper reports similar results in an appendix, without numbers at hand."}}
figures.frontier(why.variants(kernels))
# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-kernels.csv>`.
#
# ## A target instead of a price
#
# An appendix of the paper replaces $\lambda\lVert z\rVert_0$ by $\lambda\,(\lVert z\rVert_0 / L_{target} - 1)^2$, so that no
# sweep of $\lambda$ is needed. Whether the square is taken of the batch mean or of each sample is not clear from what was at
# hand; here, as in released code, it is that of the batch mean, with $\lambda = 1$. The gradient in $\theta$ is that of an
# ordinary penalty with $\lambda_{eff} = 2\,(\lVert z\rVert_0/L_{target} - 1)/L_{target}$, so that L0 must end a little *above* its
# target, by more for larger targets, just as far as is needed to pay for the sparsity.

# %% tags=["remove-cell"]
targets = pages.rows_of(why.TARGET, preset, "jumprelu2024-target")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: normalised error against L0, a grey line for the sweep of lambda and markers for runs with a target. Right: logarithm of the error ratio at equal L0 for every run, with a grey band of five per cent around zero."}, "figure": {"name": "fig-jumprelu2024-target", "caption": "The loss with a target against the sweep of lambda (grey). Left: error against L0, mean over seeds. Right: g of every run; the band is what J12 allows."}}
figures.frontier(why.variants(targets))
# %% tags=["remove-input"]
aimed = why.with_settings(targets).dropna(subset="target_l0")
pages.table_of(aimed[~aimed.half], ["target_l0"], ["l0", "nmse", "nmse_pca", "dead", "frequent"])

# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-target.csv>`. *frequent* counts latents that are active on more
# than a tenth of the samples.
#
# ## Pseudo-derivatives into the pre-activations
#
# A jump has two sides: what moves $\theta$ down could as well move $\pi$ up. With that change $\lambda$ reaches the encoder too.
# The paper tried it and found more dead latents and a worse fit; a later recipe of Anthropic's, as SAELens documents it, does
# it on purpose, with another penalty and a far wider window. Here with the reference bandwidth and with the paper's 0.001,
# for which the claim was made:

# %% tags=["remove-cell"]
into = pages.rows_of(why.INTO_PRE, preset, "jumprelu2024-into-pre")

# %% tags=["remove-input"] mystnb={"image": {"alt": "For each of two bandwidths a panel of normalised error against L0 and a panel of the share of dead latents against lambda, a grey line without and crosses with pseudo-derivatives into the pre-activations."}, "figure": {"name": "fig-jumprelu2024-into-pre", "caption": "With pseudo-derivatives into the pre-activations (crosses) and without (grey), mean over seeds, bands from the lowest to the highest. Dead: silent over the last eighth of the training samples."}}
figures.into_pre(why.variants(into, by="bandwidth"))
# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-into-pre.csv>`.
#
# ## Verdicts
#
# A comparison between short trainings may only say who is faster. So the $g$ of J9, J10 and J12 is also computed from runs
# with half of the samples, and a claim is void if the second half changed it by more than 0.05.

# %% tags=["remove-input"]
pages.verdicts(jumprelu2024.CLAIMS, ["J1", "J9", "J10", "J11", "J12"], preset)

# %% [markdown]
# ## What differs from the paper, and what this ran on
#
# Of the paper only the abstract, parts of its first four sections, descriptions by others and code were at hand; of Gemma
# Scope the whole text. The appendices with other kernels, the target and the pre-activations are known from a review, so
# that J9, J10 and J12 test statements, not figures.
#
# Comparisons between trainings use synthetic data and dictionaries of 512 latents (64 in `smoke`), not a language model. With
# `cpu` a run has 704 steps of 256 samples instead of hundreds of thousands of 4,096, so that the rate (0.002), the bandwidth
# (0.03) and the start (0.02) are larger than the paper's (0.00007, 0.001, 0.001), and $\lambda$ grows over half of the run;
# the `paper` preset has the paper's. The study of reach has two seeds, since no claim rests on it. The encoder starts at the scale that fits the data and $b_{dec}$ at their geometric
# median. Seeds draw the atoms, the weights and the samples; a comparison is always made within a seed. Dead latents are not
# revived, as in the paper, and on toy data with 256 atoms and 512 latents there have to be some.

# %% tags=["remove-input"]
pages.provenance(pd.concat([picture, gradients, rows, kernels, targets, into]))
