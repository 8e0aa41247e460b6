# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Load the real ones
#
# {cite:t}`lieberum2024`, the artefacts: files, folding, and the arithmetic of the suite.
#
# Whoever wants to *use* sparse autoencoders starts with ones that somebody else trained. Five libraries store them in five
# ways, and the ways differ in exactly what cannot be seen from the shapes: whether the encoder subtracts the decoder's
# bias, on what scale the activations are, which rule selects the latents. A wrong guess raises no error. It gives an
# autoencoder that is merely bad: a TopK file read as ReLU has many times its number of active latents, and a reader takes
# it for a poor model instead of a poor loader.
#
# This page reads and writes the five formats, sends small autoencoders through each of them and back, shows what is
# refused, and recomputes from their ingredients the numbers that {cite:t}`lieberum2024` state about the suite.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
from importlib.metadata import version

from replication import pages
from replication.figures import artefacts as figures
from replication.papers.jumprelu2024 import artefacts

pages.open_page(preset)

# %% [markdown]
# ## One line, with a network
#
# ```python
# from replication import formats
#
# sae = formats.load("google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71")
# ```
#
# The first argument is a repository of the Hugging Face hub or a folder of the same layout, the second a path in it. Only
# the files of this one autoencoder are fetched (here a single one of 302 MB), at a pinned commit; `revision` takes another.
# What comes back is an autoencoder of this library, in float32 and ready to evaluate, so every function of this book
# takes it. A path of Gemma Scope says layer, width and mean number of active latents: `16k` is $2^{14}$, `1m` is $2^{20}$.
#
# Then check it. The language model and the site must be the ones that the autoencoder was trained for:
#
# ```python
# import torch
# from replication import language_models
#
# model = language_models.load("google/gemma-2-2b", dtype=torch.bfloat16)
# site = "blocks.20.hook_resid_post"
# x = model.activations(tokens, [site])[site][:, 1:]
# formats.verify(sae, x.flatten(0, 1).float(), l0=71, l0_tolerance=0.3)
# ```
#
# `tokens`, (batch, position), begin with BOS, as in training; the activation there is dropped, as in training. The language
# model is gated: its licence has to be accepted on the hub. `verify` measures the number of active latents and the
# unexplained variance and raises an error when either is not what was stated. On other text than the authors' the number
# of active latents differs; how much of that is fine is the reader's to say. The other sites, and where the same activation
# is in Hugging Face's model:
#
# | site | TransformerLens | Hugging Face (Gemma 2) |
# |---|---|---|
# | `res` | `blocks.L.hook_resid_post` | output of `model.layers[L]` |
# | `mlp` | `blocks.L.hook_mlp_out` | output of `post_feedforward_layernorm` |
# | `att` | `blocks.L.attn.hook_z`, heads concatenated | input of `self_attn.o_proj` (from memory) |
# | transcoder | in: `blocks.L.ln2.hook_normalized`, out: `blocks.L.hook_mlp_out` | in: RMSNorm *without* its gain |
#
# ## What a released file means
#
# Gemma Scope was trained on activations divided by one constant $C$, with an encoder that subtracts the decoder's bias.
# Neither is in the files: both were folded into the weights. With $\theta$ the thresholds,
#
# $$
# b_{enc}' = C\,b_{enc} - C\,b_{dec} W_{enc}, \qquad b_{dec}' = C\,b_{dec}, \qquad \theta' = C\,\theta,
# $$
#
# a released autoencoder reads activations as the model has them:
#
# $$
# \pi = x W_{enc} + b_{enc}', \qquad f = \mathrm{ReLU}(\pi)\,H(\pi - \theta'), \qquad \hat x = f W_{dec} + b_{dec}' .
# $$
#
# The sentence "Gemma Scope has no pre-encoder bias" is thus true of the files and false of the training. This library's
# encoders do subtract $b_{dec}$, so the loader moves $b_{dec}' W_{enc}$ back into the encoder's bias, in double precision,
# rounded once:
#
# ```{literalinclude} ../replication/formats.py
# :pyobject: read_gemma_scope
# :caption: replication/formats.py
# ```
#
# ```{literalinclude} ../replication/formats.py
# :pyobject: _recentred
# ```
#
# Writing goes the other way, through the function that the tests hold against the equations above:
#
# ```{literalinclude} ../replication/sae/base.py
# :pyobject: released_form
# :caption: replication/sae/base.py
# ```
#
# ## Five formats
#
# Every file below was just written from a small autoencoder and opened again *without* this library; fields and shapes
# are what lies on disk ($d = 64$, 512 latents).

# %% tags=["remove-input"]
pages.shown(artefacts.contents(), wrap=True)

# %% [markdown]
# What the shapes do not tell, format by format:
#
# - **Gemma Scope** subtracts nothing and scales nothing. A transcoder's file has the same five fields: only the name of its
#   repository says what it is. The experimental autoencoders of token embeddings are on a scale of their own and are
#   refused.
# - **OpenAI** ([sparse_autoencoder](https://github.com/openai/sparse_autoencoder)) stores a state dict. Its loader
#   layer-normalises each token whenever the activation is *called* TopK, and undoes it without the $10^{-5}$ that it added
#   to the standard deviation. So a TopK autoencoder that was trained on anything else cannot be written in it.
# - **SAELens** keeps `apply_b_dec_to_input`, the normalisation and $k$ in `cfg.json`. Before version 6, TopK called itself
#   `standard` and hid its $k$ in a nested record. The constant of `expected_average_only_in` is in neither file, so
#   that such an autoencoder is refused rather than loaded on the wrong scale.
# - **sparsify** holds TopK only; as a transcoder it subtracts nothing.
# - **dictionary_learning** has a class for each architecture, and of these `JumpReluAutoEncoder` and `AutoEncoderNew`
#   subtract nothing. `AutoEncoderTopK` stores a threshold that it does not use unless asked. Its biases are put back on the
#   scale of the raw activations before they are saved.
#
# ## There and back
#
# Every architecture of this book, untrained but with no bias or threshold at its start, with a training scale that has to be
# folded, is written in each format that can hold it and read back. A cell says what the file calls it and the largest
# difference of any entry of the reconstructions, relative to the largest entry, over three seeds. float32 has
# $1.2\times10^{-7}$ between neighbours. BatchTopK, Matryoshka, ProLU and Gated *evaluate* like a JumpReLU, and are one for a
# format that has nothing else; what they need to be trained further is then lost. A dash: cannot be held, and `save`
# says so.

# %% tags=["remove-input"]
trips = artefacts.round_trips()
pages.shown(artefacts.as_grid(trips), wrap=True)

# %% [markdown]
# The latents are compared as well, in value and in which of them are on:

# %% tags=["remove-input"]
worst = trips.groupby("format", sort=False)[["latents", "latents on or off otherwise"]].max().reset_index()
pages.shown(worst.assign(latents=worst.latents.map(artefacts.scientific)))

# %% [markdown]
# A round trip through one's own code can be wrong twice and look right. The tests therefore compute each format's
# published equation from the files alone. Where the environments of SAELens, sparsify and dictionary_learning exist
# (`make bench` creates them) these libraries load our files with their own code and save them again, and we load what they
# saved.
#
# ## What is refused
#
# A file is believed after its names, shapes, types and values are checked. Nothing is unpickled: an npz is read without
# pickles, a `.pt` only as containers of tensors. These attempts were just made:

# %% tags=["remove-input"]
pages.shown(artefacts.refusals(), wrap=True)

# %% [markdown]
# The last but two is the classic: the file loads, every shape fits, and only a measurement shows that something is wrong.
#
# ## The arithmetic of the suite
#
# {cite:t}`lieberum2024` state what the suite contains, stores and costs. None of it can be trained here, all of it can be
# recomputed. *About* is taken as within 10 %, unless the last column says otherwise.

# %% tags=["remove-cell"]
rows = pages.rows_of(artefacts.ARITHMETIC, preset, "jumprelu2024-formats")

# %% tags=["remove-input"]
table = artefacts.agreement()
pages.shown(table, wrap=True)

# %% tags=["remove-input"]
pages.verdicts(artefacts.CLAIMS, ["G13"], preset)

# %% tags=["remove-input"]
pages.facts(artefacts.assumption())

# %% [markdown]
# Two rows depend on how work is counted. $12\,d\,n$ flops per activation are three passes (forward, and backward to inputs
# and to weights) through two matrices. But nothing asks for the gradient on the encoder's input, except the pre-encoder
# bias, whose gradient is a single product of a vector; without it there are $10\,d\,n$. The lines above show both rows
# in that count. The count that brings the utilisation closer to what is published is likely the authors' own; a share of
# GPT-3's compute that is above 20 % in one count need not be so in the other.
#
# If the format is understood, the size of a file follows to the byte: five float32 arrays and what NumPy and zip put
# around them.
#
# ```{literalinclude} ../replication/papers/jumprelu2024/artefacts.py
# :pyobject: npz_bytes
# :caption: replication/papers/jumprelu2024/artefacts.py
# ```
#
# Beside it what users report for a 65k-wide file of the 2B residual stream:

# %% tags=["remove-input"]
pages.facts(
    {
        "computed": f"{artefacts.npz_bytes(2304, 2**16):,} bytes",
        "reported": f"{artefacts.REPORTED_BYTES:,} bytes",
    }
)

# %% [markdown]
# Where the bytes and the compute are:

# %% tags=["remove-input"] mystnb={"image": {"alt": "Grouped bars over the number of latents from two to the fourteen to two to the twenty: percent of the released autoencoders in grey, of their bytes in black and of their training compute in colour."}, "figure": {"name": "fig-jumprelu2024-suite", "caption": "Share of each width in the number of released autoencoders, in the bytes of their files and in the compute that trained them. Computed from Table 1 of the paper, the widths of Gemma 2 and the number of files in the registry of SAELens; nothing is measured."}}
figures.shares(artefacts.by_width())
# %% tags=["remove-input"]
pages.shown(artefacts.suite_table())

# %% [markdown]
# ## What differs, and what this ran on
#
# **No released weights are read on this page**: it builds without a network, on files in the same layout. The call to the hub
# is tested for what it asks for and for its error where there is no hub, not for what Google's server answers. Field
# names come from published loading code (Gemma Scope), from `model.py` of the repository (OpenAI, whose released files
# were not at hand) and from the installed packages (the other three). The number of files per width was counted in the
# registry of SAELens 6.54, which lists 2,430; repositories may hold others. The peak of a TPUv3 chip and the compute of
# GPT-3 are not in the paper, nor is what it counts as extras. Tokens for transcoders follow the rule for their width.

# %% tags=["remove-input"]
pages.provenance(rows)

# %% tags=["remove-input"]
pages.facts({name: version(name) for name in ("torch", "numpy", "safetensors", "huggingface_hub")})
