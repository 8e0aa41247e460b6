# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Latents, seen
#
# {cite:t}`gao2024`; the counterpart of the viewer released with the paper's code.
#
# Every other page of this chapter averages over latents. This one shows them, one by one, for a single TopK autoencoder:
# where a latent is active, which tokens it promotes, what the language model loses without it, and which known property
# of the text it follows. The released viewer shows, for each latent, its density, a histogram of its activations, the
# contexts with its largest and with random activations, and what ablating it does to the loss and to the logits (read
# from the viewer's source). No claim is tested here. The page exists to be looked at, and to keep the averages honest.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
from replication import dashboard_html, pages
from replication.papers import gao2024

pages.open_page(preset)
rows = pages.rows_of(gao2024.latents.LATENTS, preset, "gao2024-latents")
found = gao2024.latents.seen(preset)
address = dashboard_html.write(found, "gao2024", page="gao2024-latents")

# %% [markdown]
# ## The dashboard

# %% tags=["remove-input"]
dashboard_html.door(found, address)

# %% [markdown]
# Search by number (`17`), by token (`import`) or by property (`docstring`). A token is searched for among those that a
# latent is active on in its top contexts and those that it promotes; it is taken as a whole, and as a part of tokens only
# if the vocabulary has no such token. Sort by density, by activation, by the effect of removal or by how well a latent
# follows its property. The dashboard is a folder of plain files: it works without a network and without a server, and
# its address keeps the latent and the search.
#
# In contexts, the darker a token the larger the activation, and an underline says the same without colour. A frame marks
# the token that the context was chosen for. ↵ is a line break, ⇥ a tab, · one of several spaces. Look at the random
# contexts, not only at the top ones: **a latent that looks clear at its largest activations often does not at its
# smaller ones**, which are most of them.
#
# ## What is measured
#
# All text is held out from the autoencoder's training, and that of the embedded models from theirs. *Density* is the
# share of its tokens on which a latent is active. Top contexts come from different blocks, and of contexts that end in the same
# tokens one is shown, because code repeats itself.
#
# **Tokens it promotes.** The decoder row is read through the language model's unembedding, as if no layer stood in
# between. The final layer norm's centring and gain are kept; its division by the norm, which changes no token's rank, is
# left out. Scores are standard deviations over the vocabulary. A random direction has a top score too; the latents of the
# untrained autoencoder show how high.
#
# ```{literalinclude} ../replication/evaluate/dashboard.py
# :pyobject: vocabulary_scores
# :caption: replication/evaluate/dashboard.py
# ```
#
# **What its removal costs.** At each of a latent's top contexts its share is subtracted from the true activation at that
# one token, and the loss of the next token is compared. The control is a random direction of the same length, subtracted
# at the same place.
#
# ```{literalinclude} ../replication/evaluate/dashboard.py
# :pyobject: removal
# ```
#
# **Which property it follows.** Python's own lexer and parser say what every token is (`replication/code_labels.py`).
# A latent predicts a property where it is active; the property with the highest F1 above chance names it. That is a
# label, not an explanation: most latents follow something that is not on the list.
#
# ```{literalinclude} ../replication/evaluate/dashboard.py
# :pyobject: follows
# ```
#
# **Explanation by patterns.** Neuron to Graph, from the largest activations of each latent: the shortest ending of a
# context that keeps half of the activation, with the tokens that do not matter replaced by *any token*. Here it is shown,
# not scored.
#
# ## In numbers

# %% tags=["remove-input"]
pages.facts(gao2024.latents.in_words(rows.iloc[0]))

# %% [markdown]
# {download}`The row behind these numbers <tables/gao2024-latents.csv>`. A latent whose removal costs no more than a random
# direction of the same length does nothing special for the very next token where it is most active. It may still matter
# for later tokens, which are not counted here.
#
# ## Which latents follow what Python knows
#
# One line per property that the text has, best followed first; latents lead to the dashboard. Precision is to be compared
# with the property's share of all tokens, F1 with that of a latent which is as often active, but independent of the
# property (*by chance*). *Untrained* is the control for choosing the best of many: F1 above chance of the best latent of
# the autoencoder before its training, chosen on the same text.

# %% tags=["remove-input"]
dashboard_html.labels_table(found, address)

# %% [markdown]
# ## Latents that follow a property best
#
# Chosen by a rule: the best latents of the properties on top of the table. Each card shows three of the largest
# activations, then one random activation from each quarter of all of them, from the highest to the lowest.

# %% tags=["remove-input"]
dashboard_html.cards(found, address, dashboard_html.best_of_labels(found, 4))

# %% [markdown]
# ## Latents drawn at random
#
# A fixed seed draws them among all latents that are active in the text.

# %% tags=["remove-input"]
dashboard_html.cards(found, address, found["drawn"])

# %% [markdown]
# ## What chance looks like
#
# Random latents of the same autoencoder before its first training step. Their contexts, too, have something in common: a
# random direction of a language model's activations is not a random choice of tokens. A trained latent is remarkable only
# as far as it looks better than these.

# %% tags=["remove-input"]
dashboard_html.cards(found, address, of="untrained")

# %% [markdown]
# ## What differs from the paper's viewer, and what this ran on
#
# The subject is a small language model of Python source unless the page was built with the `paper` preset. The viewer
# also reports the effect of an ablation on every later token, with the logits that move most, and higher moments of the
# activations; here the effect on the next token stands for the first, and the histogram for the second. The viewer has no
# untrained control, no random direction and no known properties of the text. One seed is shown: a latent of one
# autoencoder has no exact counterpart in another.

# %% tags=["remove-input"]
pages.provenance(rows)
