# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A scope of our own
#
# {cite:t}`lieberum2024`, Table 1 and Figures 2, 4, 5, 13 and 17.
#
# One sparse autoencoder shows one place of a language model at one sparsity. Gemma Scope is a *suite*: JumpReLU
# autoencoders {cite:p}`rajamanoharan2024jumprelu` at every layer, at three sites of each layer, at several sparsities and
# widths, all trained with the same settings. This page makes such a suite for a small language model, writes it as files
# in the layout of the released ones, and tests what the paper says about the whole:
#
# - autoencoders on the residual stream harm the language model more than those on the outputs of the MLP or of attention,
#   though they explain as much of the variance (**G1**);
# - at equal sparsity a wider autoencoder is more faithful (**G2**);
# - with the width, most latents fire less often, but some very frequent ones stay (**G3**);
# - one learning rate and one bandwidth serve every layer and site, once activations are scaled (**G11**);
# - the scale and the bias subtracted before the encoder fold into the weights exactly (**G12**).

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
from replication import pages
from replication.figures import jumprelu_scope as figures
from replication.papers import jumprelu2024
from replication.papers.jumprelu2024 import scope

pages.open_page(preset)

# %% [markdown]
# ## One command
#
# ```bash
# replicate suite --preset cpu --out my-scope
# ```
#
# trains the suite of a preset and writes one file per autoencoder:
#
# ```text
# my-scope/
#   index.json  index.csv         site, layer, width, lambda, L0, FVU, delta LM loss, sha256, ... of every file
#   res/layer_2/width_512/average_l0_31/params.npz
#   res/layer_2/width_2k/average_l0_31/params.npz
#   mlp/layer_0/...
# ```
#
# The part behind the site is the path inside one of Google's repositories, which hold one model and site each:
# `formats.load("google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71")` there,
# `formats.load("my-scope/res", "layer_2/width_2k/average_l0_31")` here ({doc}`jumprelu2024-formats`). `2k` is $2^{11}$ as
# `16k` is $2^{14}$; fewer than 1,024 latents stand as a plain number, which the release does not need. The last number is
# the L0 that was measured, rounded; where two autoencoders of one layer and width would share it, the second gets a
# decimal.
#
# Nothing is trained twice: what this page has trained is only saved, and an interrupted suite goes on where it stopped.
# At the end every file is read back from disk, and its L0 and FVU on raw held-out activations must come out as they did
# before it was saved, the first within 0.1 %, the second within 0.0001, or the command fails.
#
# ```{literalinclude} ../replication/suite.py
# :pyobject: check
# :caption: replication/suite.py
# ```
#
# What it trains at this preset, as the paper's Table 1 lists its own suite:

# %% tags=["remove-input"]
pages.shown(scope.table_one(preset))

# %% [markdown]
# In the paper: for Gemma 2 2B (26 layers) $2^{14}$ and $2^{16}$ latents at all layers and sites, and $2^{15}$ to $2^{20}$ at one
# to three layers of the residual stream; for 9B (42 layers) $2^{14}$ and $2^{17}$ everywhere; 4 to 16 billion tokens
# each. The table above is to that as a sketch is to a building; the plan is the same.
#
# ### Settings
#
# ```{literalinclude} ../replication/papers/jumprelu2024/grid.py
# :pyobject: jumprelu_run
# :caption: replication/papers/jumprelu2024/grid.py
# ```
#
# Activations are divided by one constant per site so that $\mathbb E\lVert x\rVert^2=1$. **The first position of every
# context is left out**, as BOS is in the paper. In the middle of these models it has a squared norm of a hundred times
# that of any other token and more, and would set the constant alone:
#
# ```{literalinclude} ../replication/papers/jumprelu2024/grid.py
# :pyobject: source
# :caption: replication/papers/jumprelu2024/grid.py
# ```
#
# An autoencoder that never saw position 0 must not be asked for it. The paper does not say what happens to BOS when
# reconstructions are put into the model; here **position 0 keeps its activation, in the controls too**, and losses are
# averaged over the predictions from the other positions:
#
# ```{literalinclude} ../replication/evaluate/splicing.py
# :pyobject: spliced
# :caption: replication/evaluate/splicing.py
# ```

# %% tags=["remove-cell"]
rows = pages.rows_of(scope.NORMALISED, preset, "jumprelu2024-scope")
normalised = rows[rows.normalisation == "gemma"]
cells, ladder = scope.cells(rows), scope.ladder(rows)

# %% [markdown]
# ## Sites: the same error, not the same harm
#
# The rise of the language model's loss when a site is replaced by its reconstruction (ΔLM loss), against the number of
# active latents:

# %% tags=["remove-input"] mystnb={"image": {"alt": "One panel per layer: rise of the language model's loss against L0 on logarithmic axes, a line for each of attention, MLP output and residual stream, with dashed lines for each site set to its mean and a dotted box for the range of the paper's figure."}, "figure": {"name": "fig-jumprelu2024-sites", "caption": "Harm against sparsity by layer and site, all at the same width; lower is better. Dashed, in the colour of a site: the harm of setting it to its mean, which is what a reconstruction that knows nothing does. The dotted box is the range of the paper's Figure 2, whose SAEs have 30 to 2,000 times as many latents: compare the order of the lines with it. There, the residual stream lies clearly highest. Bands, where a layer was trained with several seeds: lowest to highest seed."}}
figures.harm_by_site(cells, scope.PUBLISHED)
# %% [markdown]
# A site matters as much as what depends on it. Everything that later layers know of earlier ones passes through the
# residual stream; attention and the MLP of one layer each add one term to it, and what they lose, others may still supply. The
# dashed lines measure this without any autoencoder, and the comparison is only made where they differ: it is void unless
# setting the residual stream to its mean harms at least twice as much.
#
# The share of the *variance* that is lost is another matter:

# %% tags=["remove-input"] mystnb={"image": {"alt": "One panel per layer: fraction of variance unexplained against L0 on logarithmic axes, a line for each site, with dotted lines for as many principal components."}, "figure": {"name": "fig-jumprelu2024-scope-fvu", "caption": "Fraction of variance unexplained at the same autoencoders. Dotted, in the colour of a site: what as many principal components as the L0 leave, a linear code that chooses nothing. In a space of so few dimensions, principal components are hard to beat at large L0. The paper's Figure 13 has the sites close together."}}
figures.error_by_site(cells)
# %% [markdown]
# Controls and the middle $\lambda$, first seed. *Untrained* is the same autoencoder before its first step, *PCA* as many
# principal components as its L0; the last column is the harm as a share of that of mean ablation.

# %% tags=["remove-input"]
pages.shown(scope.ablations(rows))

# %% [markdown]
# ## Depth

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels, one per site: rise of the language model's loss against L0 on logarithmic axes, one line per layer from light to dark."}, "figure": {"name": "fig-jumprelu2024-depth", "caption": "The same points by depth, light to dark from the first to the last layer. The paper's Figure 17 shows seven layers of Gemma 2 2B with curves that change smoothly from layer to layer. No rule is attached to it."}}
figures.harm_by_depth(cells)
# %% [markdown]
# ## Width

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels: rise of the language model's loss and fraction of variance unexplained against L0 on logarithmic axes at one layer of the residual stream, one line per width from light to dark."}, "figure": {"name": "fig-jumprelu2024-width", "caption": "One layer of the residual stream at several widths, the same values of λ and the same number of tokens. Left ΔLM loss, right FVU; bands: lowest to highest seed. In the paper's Figure 4 (Gemma 2 9B, layer 20, 16.4K to 524K latents) the wider lies lower throughout."}}
figures.harm_by_width(ladder)
# %% [markdown]
# In the paper the narrowest autoencoder has 4 billion tokens and the wider ones 8. Here all have the same number, which is the
# harder condition for the wide ones; where they lose *and* their training error still falls faster, the rule says
# that nothing can be concluded.
#
# ## How often latents fire

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels: histograms of firing frequency for several widths; the median frequency of live latents against the width, with a dotted line for L0 over live latents; the number of latents above ten per cent against the width."}, "figure": {"name": "fig-jumprelu2024-frequencies", "caption": "Left: on which share of held-out tokens latents fire, one line per width, first seed; grey: 1 % and 10 %. Middle: the median over live latents; dotted: L0 divided by the number of live latents, their mean. Right: latents that fire on more than 10 % of tokens. The paper's Figure 5 (λ = 6e-4, L0 about 50) shows the mass moving left with the width and a cluster of very frequent latents staying where it is."}}
figures.frequencies(ladder, scope.BINS)
# %% [markdown]
# Part of this is arithmetic. At equal L0 the mean frequency of $M$ latents is $L_0/M$, so that it *must* halve when the
# width doubles (dotted lines; $-0.30$ in $\log_{10}$). What is empirical is that the median follows and the frequent
# latents do not. The second half is weak at this size: with hundreds of latents and an L0 of dozens, latents
# above 10 % are bound to exist. In the paper they are fewer than 80 of 131,072 {cite:p}`rajamanoharan2024jumprelu`.
#
# ## The same settings everywhere
#
# Bandwidth and threshold are lengths, and $\lambda$ is compared with a squared one. If activations had the scale of the
# model, every site would need its own settings. The paper trains everything with one learning rate and one bandwidth after
# scaling. The negative control trains some cells of the suite on activations as they are:

# %% tags=["remove-input"] mystnb={"image": {"alt": "L0 on a logarithmic axis for every layer and site, dots coloured by lambda, crosses for SAEs trained without normalisation, and grey dashes for L0 before training."}, "figure": {"name": "fig-jumprelu2024-settings", "caption": "L0 at every layer and site for the same learning rate, bandwidth and λ. Dots: activations scaled to E|x|² = 1, one per seed; crosses, at the first and the last layer: raw activations, same settings; grey: before training. The closer the dots of one colour lie to a horizontal line, the better one setting fits all."}}
figures.one_setting(scope.with_ablated(rows))
# %% [markdown]
# ## Folding
#
# Users of a released file should not have to know the constant $C$, nor that the encoder subtracted a bias. Both vanish into the
# parameters: $b_{enc}'=C\,b_{enc}-C\,b_{dec}W_{enc}$, $b_{dec}'=C\,b_{dec}$, $\theta'=C\,\theta$. The latents come out multiplied by
# $C$, the reconstruction the same. In exact arithmetic this is an identity; in float32 a pre-activation that lies on its
# threshold to seven digits may fall on the other side. So every autoencoder of this page is run in both forms:
#
# ```{literalinclude} ../replication/papers/jumprelu2024/scope.py
# :pyobject: released_forward
# :caption: replication/papers/jumprelu2024/scope.py
# ```
#
# ## The table

# %% [markdown]
# {download}`The table behind the figures of this page <tables/jumprelu2024-scope.csv>`, one line per run; means over
# seeds:

# %% tags=["remove-input"]
pages.table_of(
    scope.with_ablated(normalised).rename(columns=scope.SHORT),
    ["layer", "site", "d_sae", "sparsity"],
    ["l0", "fvu", "delta_ce", "kl", "dead", *scope.SHORT.values()],
)

# %% [markdown]
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(jumprelu2024.CLAIMS, ["G1", "G2", "G3", "G11", "G12"], preset)

# %% [markdown]
# ## What differs from the paper, and what this ran on
#
# The subject is a small language model of Python source instead of Gemma 2; it has no RMSNorm behind its sub-blocks, so
# that the MLP's output is read where it is added to the residual stream. Autoencoders have hundreds to thousands of
# latents and are trained on a few hundred thousand tokens (`cpu`) instead of billions, which JumpReLU feels more than
# other methods: its encoder gets no gradient from the sparsity, and features form only as thresholds prune. For
# runs this short the bandwidth is 0.03 instead of 0.001, thresholds start at 0.02 instead of 0.001, the learning rate is
# higher, and $\lambda$ grows over half of the run. $b_{dec}$ starts at the geometric median and the encoder at the scale that
# fits, not at zero and at the decoder's transpose. The values of $\lambda$ are ours; of the paper's only 6e-4 and 1e-3 are
# known. BOS tokens inside a context, one per source file, count like any other token, and so do the ends of files.
#
# Every seed is trained at one layer (all three sites, and the ladder of widths), the other layers with the first alone
# (`cpu`), so that intervals over seeds are those of one layer; the paper trains each autoencoder once. Frequencies are
# measured on tens of thousands of tokens instead of 20 million, so that latents rarer than one in ten thousand look dead. The learning
# rate was chosen once, at one site, on data of another seed. The thresholds that turn the paper's words
# into rules (twice, three times, 90 %) are ours.

# %% tags=["remove-input"]
pages.provenance(rows)
