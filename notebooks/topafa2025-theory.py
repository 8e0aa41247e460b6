# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Theory: the norm bound
#
# {cite:t}`lee2025` rate sparse autoencoders, and choose their number of active latents, by one idea: the norm of a dense
# vector $z$ *predicts* the norm of its sparse code $f$. The idea rests on an inequality, and everything else in this part
# rests on the idea. Before it is put to use, this page asks of the inequality alone, on directions that are known:
#
# - does it hold (**T1**);
# - are the two norms in fact about equal (**T2**), and the more so in more dimensions and with more orthogonal directions
#   (**T3**);
# - does the inequality *say* anything at the sizes for which it is used (**T4**);
# - does any of this need a sparse code (**T5**)?
#
# No autoencoder is trained here. $z$ is made from $f$, so that nothing but the geometry can be at fault.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
import pandas as pd

from replication import pages
from replication.figures import topafa_theory as figures
from replication.papers import topafa2025
from replication.papers.topafa2025 import theory

pages.open_page(preset)

# %% [markdown]
# ## Three premises
#
# **Linear representation.** A hidden vector $z \in \mathbb R^d$ is a sum of directions, each with its coefficient:
#
# $$
# z = W f = \sum_{i=1}^{h} f_i w_i, \qquad \lVert w_i \rVert = 1 .
# $$
#
# **Superposition.** There are more directions than dimensions, $h > d$.
#
# **Quasi-orthogonality.** They cannot all be orthogonal then, but they can come close: there is an $\varepsilon$ with
#
# $$
# \lvert \langle w_i, w_j \rangle \rvert \le \varepsilon \qquad \text{for all } i \ne j .
# $$
#
# Room is plentiful. By the lemma of Johnson and Lindenstrauss, about $e^{c\,\varepsilon^2 d}$ directions fit into $d$
# dimensions, with a constant $c$ that does not depend on $d$. But not for free: whatever the directions, by Welch's bound
#
# $$
# \varepsilon \ \ge\ \sqrt{\frac{h-d}{d\,(h-1)}} .
# $$
#
# ## The bound, in two lines
#
# Squared, the norm of $z$ is that of $f$ and a sum of cross terms, and each of these has a factor of at most $\varepsilon$:
#
# $$
# \lVert z\rVert^2 - \lVert f\rVert^2 \;=\; \sum_{i \ne j} f_i f_j \langle w_i, w_j\rangle ,
# \qquad\text{so}\qquad
# \big|\,\lVert z\rVert^2 - \lVert f\rVert^2\,\big| \;\le\; \varepsilon \big(\lVert f\rVert_1^2 - \lVert f\rVert_2^2\big).
# $$
#
# By the inequality of Cauchy and Schwarz $\lVert f\rVert_1^2 \le k \lVert f\rVert_2^2$, with $k \le h$ the number of
# non-zero coefficients. In short
#
# $$
# \big|\,\lVert z\rVert^2 - \lVert f\rVert^2\,\big| \;\le\; \varepsilon\,(m-1)\,\lVert f\rVert^2
# \qquad\text{for}\quad m \;=\; \frac{\lVert f\rVert_1^2}{\lVert f\rVert_2^2} \;\le\; k \;\le\; h .
# $$
#
# The paper uses the loosest of the three, $m = h$, which asks for no sparsity. Solved for $\lVert f\rVert$ it is a
# *wedge* around the diagonal $\lVert f \rVert = \lVert z \rVert$; the paper calls the estimate $\lVert f\rVert \approx
# \lVert z\rVert$ approximate feature activation (AFA):
#
# $$
# \frac{\lVert z\rVert}{\sqrt{1+\varepsilon(h-1)}} \;\le\; \lVert f\rVert \;\le\;
# \frac{\lVert z\rVert}{\sqrt{1-\varepsilon(h-1)}} ,
# $$
#
# ```{literalinclude} ../replication/evaluate/norms.py
# :pyobject: wedge
# :caption: replication/evaluate/norms.py
# ```
#
# where the right side exists only for $\varepsilon (h-1) < 1$. Solved for $\varepsilon$ it is the paper's score of one
# input, the least $\varepsilon$ that a dictionary must have if it explains $z$ by $f$:
#
# ```{literalinclude} ../replication/evaluate/norms.py
# :pyobject: eps_lower_bound
# :caption: replication/evaluate/norms.py
# ```
#
# ## Does it hold, and could the test fail?
#
# A theorem cannot fail, but code can, and so can a test that would not notice. Five arrangements of directions, each with
# thousands of codes of several $k$:
#
# - *random* directions, independent of each other, with coefficients drawn from $U(0.5, 1.5)$;
# - *repelled* directions: random ones after a hundred gradient steps that push close pairs apart;
# - two adversaries with equal cosines and equal coefficients, for which every $\le$ above is an $=$. A *simplex* has
#   $h = d + 1$ directions with cosines $-1/d$. *Aligned* directions have equal positive cosines; at most $d$ directions
#   can, and here $\varepsilon(h-1) = 0.5$, so that both sides of the wedge exist;
# - *antipodal* directions, an orthonormal basis and its negative, as a control. The logs of the released code record the
#   largest cosine *with its sign*. Here that is 0, while $\varepsilon$ is 1.

# %% tags=["remove-cell"]
rows = pages.rows_of(theory.BOUND, preset, "topafa2025-theory-bound")

# %% tags=["remove-input"]
pages.shown(theory.violation_table(rows))

# %% [markdown]
# Three numbers stand for the forms with $h$, with $k$ and with the 1-norm. *reached* is the largest share of the bound that
# any code attains: 1 is a code on the bound, and a test in which nothing comes near 1 would prove little. The last column
# puts the largest signed cosine in place of $\varepsilon$; what it counts are violations of a bound that is wrong.
# Where no cosine is positive, as in the simplex, 0 takes its place.
# {download}`The table behind <tables/topafa2025-theory-bound.csv>`, one row per arrangement, size and seed.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Four panels of the squared norm of z over that of f against the number of active directions. For random directions, a flat blue band around 1 and bounds that open so quickly that they leave the panel after a few active directions. For equal cosines, blue dots that lie on the lower bound for the simplex and on the upper bound for aligned directions."}, "figure": {"name": "fig-topafa2025-wedges", "caption": "Squared norm of z over squared norm of f against the number of active directions. Blue: codes of all seeds, from the smallest to the largest, the middle half, and the median. Lines: the bounds with k and with the 1-norm, which open to both sides; in the corner, the range that the bound with h leaves. Random directions at the smallest and the largest size, then the two adversaries, whose codes lie on the bound."}}
figures.wedges(theory.wedges(rows))
# %% [markdown]
# ## What the bound demands
#
# The lower side of the wedge always exists. The upper side, which alone can call a code too *large*, asks for
# $\varepsilon(h-1) < 1$. Three lines show what this means:
#
# 1. Suppose $\varepsilon(h-1) < 1$. In each row of the matrix $W^\top W$ the diagonal is 1, and the other entries
#    together have size at most $\varepsilon(h-1) < 1$.
# 2. A matrix whose diagonal dominates in this way is invertible (Gershgorin), so the directions are linearly independent.
# 3. Then $h \le d$.
#
# **The upper side of the theorem and superposition exclude each other.** For every dictionary with more directions than
# dimensions, however good, $\varepsilon(h-1) \ge 1$. It must be so: if $h > d$ there is a code $f \ne 0$ with $Wf = 0$, and
# no multiple of $\lVert z\rVert = 0$ can bound its norm. The simplex is the limit: $h = d+1$, $\varepsilon(h-1) = 1$, and the
# code with all coefficients equal has $z = 0$.
#
# With $k$ in place of $h$ the condition is $k < 1 + 1/\varepsilon$, a familiar one: up to a factor of two it is the
# condition under which coherence guarantees that sparse codes can be found at all. With Welch's bound for $\varepsilon$,
# $1/\varepsilon$ is about $\sqrt d$. The form with the 1-norm reaches a little further when few of the active coefficients
# dominate; the codes below are drawn from an exponential law for that reason.

# %% tags=["remove-cell"]
informative = pages.rows_of(theory.INFORMATIVE, preset, "topafa2025-theory-informative")
table = theory.by_k(informative)

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: epsilon times m minus 1 against the number of directions on logarithmic axes, orange lines for m = h rising far above a black line at 1, flat pink and green lines for k and for the 1-norm, hollow black markers for the least that is possible at the sizes of GPT-2 small and Gemma, and filled ones below 1 for the measured scores. Right: the largest number of active directions with a finite upper bound, rising slowly with d."}, "figure": {"name": "fig-topafa2025-informative", "caption": "Left: the relative width of the bound, eps (m - 1), against h; darker lines are larger d. Above 1 there is no upper bound for the norm of the code. Solid: random directions; dotted: repelled; dashed: Welch's bound, with which no dictionary of this size can be below. Hollow: Welch's bound at the sizes of the paper's two models; filled: (h - 1) times the median eps_LBO of its released tables. Right: the largest k for which the upper bound exists (with the 1-norm: for half of the codes), mean and range over seeds and h; hollow: the same from Welch's bound at the paper's sizes."}}
figures.informative(table, theory.released_points())
# %% tags=["remove-input"]
pages.table_of(
    table[table.k == sorted(set(table.k))[1]],
    ["d_in", "n_atoms", "arrangement"],
    ["eps", "welch", "c_h", "finite_k", "finite_l1", "lbo_share"],
)

# %% [markdown]
# *eps* is the largest |cosine| and *welch* the least possible one; *c_h* is $\varepsilon(h-1)$; *finite_k* and *finite_l1* are
# the largest $k$ with a finite upper bound; *lbo_share* is the median of eps_LBO over $\varepsilon$, for codes of the middle
# $k$ in the table. {download}`The table behind <tables/topafa2025-theory-informative.csv>`.
#
# The last column is about the name. eps_LBO is a *lower bound* on $\varepsilon$, and it is a correct one, but how close it
# comes can be seen from the paper's own data. The median score of its tables is $1.4 \cdot 10^{-5}$ for GPT-2 small and
# $3.6 \cdot 10^{-5}$ for Gemma 2 2B; by Welch's bound no dictionary of these sizes has an $\varepsilon$ below 0.036 and
# 0.019. The true $\varepsilon$ is hundreds to thousands of times as large as what the score certifies, so that the score
# cannot be read as an estimate of how orthogonal the directions are. It is $\lvert 1/r^2 - 1\rvert$ with
# $r = \lVert f\rVert / \lVert z\rVert$, divided by a constant.
#
# ## Why the norms agree nevertheless
#
# The worst case does not explain AFA. The average case does. Let the directions be independent and random, and $f$ fixed.
# A cosine then has mean 0 and variance $1/d$, and the cosines of different pairs are uncorrelated. With $p = f/\lVert f\rVert$,
#
# $$
# \mathbb E\,\frac{\lVert z\rVert^2}{\lVert f\rVert^2} = 1 ,
# \qquad
# \operatorname{sd}\frac{\lVert z\rVert^2}{\lVert f\rVert^2}
# = \sqrt{\frac2d\Big(1 - \sum_i p_i^4\Big)} \;\approx\; \sqrt{\frac2d} .
# $$
#
# There is neither $h$ nor $\varepsilon$ in it, and $k$ only in the last factor, which approaches 1 quickly. For a fixed
# dictionary and supports drawn evenly, $1/d$ is replaced by the mean square of its cosines. Orthogonality on *average* is
# what counts, not that of the worst pair, and there is little of it to be gained: the mean square of $h$ directions is at
# least the square of Welch's bound, $\frac{h-d}{d(h-1)}$, which for $h \gg d$ is $1/d$ again.

# %% tags=["remove-cell"]
cells = theory.spread_cells(rows)

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: standard deviation of the ratio of squared norms against the number of dimensions on logarithmic axes; lines for random and repelled directions fall along the dashed line of the square root of 2 over d, and black markers for the layers of two language models lie above it. Right: measured over predicted standard deviation, dots around 1."}, "figure": {"name": "fig-topafa2025-spread", "caption": "Left: standard deviation over codes of the squared norm of z over that of f, against d, for k = 4, 8 and 16; line and band are mean and range over k and seeds. Black: layers of the paper's two models, from the quartiles of the norm ratio in its released tables (read as if normal); these are codes of trained autoencoders, which also leave an error of reconstruction. Right: the measured standard deviation over the one predicted from the mean square cosine and the codes."}}
figures.spread(cells, theory.released_points())
# %% tags=["remove-input"]
pages.table_of(
    cells[cells.k == 8],
    ["arrangement", "d_in", "n_atoms"],
    ["eps", "r", "sd", "predicted", "relative_sd"],
)

# %% [markdown]
# *r* is the median of $\lVert f\rVert/\lVert z\rVert$ over codes, *sd* the standard deviation of
# $\lVert z\rVert^2/\lVert f\rVert^2$, *predicted* the same from the mean square cosine and $\sum_i p_i^4$, and *relative_sd* is
# *sd* over $\sqrt{2/d}$; all at $k = 8$, with half the range over seeds.
#
# The black markers put the released autoencoders beside this. With random directions and an exact code, the middle half of
# $\lVert z\rVert^2/\lVert f\rVert^2$ would lie within about 3.4 % of 1 at $d = 768$, and within 2 % at $d = 2304$.
# The medians of the released ratios are further from 1 than that in every layer, and in nearly all the spread is wider. If
# the norms of a trained autoencoder disagree, random directions are thus not the reason. What is left is that active
# latents point to similar directions, and that the reconstruction leaves something out; the next page tells the two apart.
#
# ## Dense codes
#
# No step of the proof needs a sparse code, and neither does the average over random *dictionaries*. But an autoencoder has
# one dictionary. Averaged over supports and coefficients instead, and with $\gamma$ the mean cosine of all pairs,
#
# $$
# \frac{\mathbb E\lVert z\rVert^2}{\mathbb E\lVert f\rVert^2} - 1
# \;=\; (k-1)\,\frac{(\mathbb E f_i)^2}{\mathbb E f_i^2}\;\gamma ,
# $$
#
# expectations on the right over active coefficients. Coefficients of random sign leave nothing of it; those of one sign, and
# the latents of ordinary sparse autoencoders are never negative, *add up* whatever the dictionary's directions have in
# common. In a random dictionary $\gamma$ is as good as zero but not zero, its size is about $\sqrt{2/d}\,/(h-1)$, so that the
# effect becomes visible as $k$ approaches $h$. A learned dictionary whose directions share a component would show it
# earlier.

# %% tags=["remove-cell"]
dense = theory.by_k(pages.rows_of(theory.DENSE, preset, "topafa2025-theory-dense"))

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: median ratio of the norms against the share of active directions, one dot per dictionary: dots for random signs stay in a grey band around 1, dots for one sign fan out as all directions become active. Middle: the relative standard deviation, which for one sign falls at full activity. Right: the mean departure of the squared ratio from 1 against its prediction, dots along the diagonal."}, "figure": {"name": "fig-topafa2025-dense", "caption": "Left and middle: codes with more and more active directions in few dimensions, a dot per dictionary; grey is what T5 allows at k / h = 1/4. By the formula above, codes of one sign with all directions active share the ratio of their dictionary. Right: departure of the mean ratio of squared norms from 1, against that formula, at every d, k and sign."}}
figures.dense(dense, theory.CLOSE, theory.SPREAD)
# %% tags=["remove-input"]
pages.table_of(dense, ["d_in", "law", "k"], ["r", "relative_sd", "bias", "predicted_bias"])

# %% [markdown]
# Means over dictionaries, half the range after ±; *bias* is the mean of $\lVert z\rVert^2/\lVert f\rVert^2 - 1$ and
# *predicted_bias* the right side of the formula. {download}`The table behind <tables/topafa2025-theory-dense.csv>`.
#
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(topafa2025.CLAIMS, ["T1", "T2", "T3", "T4", "T5"], preset)

# %% [markdown]
# T4 is no claim that the paper makes in these words. It is what a reader takes a bound for, and it is here because a true
# theorem (T1) and a good approximation (T2, T3) together look like an explanation: the theorem would then be why the norms
# agree. The section on the average case says what is. The rule of T2 also forbids spreads that are much *smaller* than
# $\sqrt{2/d}$; with two active directions, or with repelled directions and $h = 2d$, these occur, because the last factor
# and the mean square cosine are smaller, and such cells are outside its scope.
#
# ## What differs from the paper, and what this ran on
#
# The text of the paper was not at hand. The inequality is the one whose slopes the released notebook draws, with $h$; its
# proof is standard, and the forms with $k$ and with the 1-norm, the argument that the upper side excludes superposition,
# and the average case are derivations of this page, not statements of the paper. Whether the paper proves its theorem the
# same way is not known here. Sizes are free: the theory names none, and the `paper` preset takes the dictionary sizes of
# its two models. Released numbers are medians and quartiles computed from its published tables, to two or three digits.
# Directions are synthetic in every preset. What trained autoencoders do is the subject of the next pages.

# %% tags=["remove-input"]
pages.provenance(pd.concat([rows, informative, dense]))
