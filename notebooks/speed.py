# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Speed
#
# How long one training step takes, here and in three other libraries. Nothing is computed on this page: it reads the
# tables that `make bench` writes into `benchmarks/results`: `cpu.csv`, `cpu_memory.csv` and, once it has been run on a
# GPU, `gpu.csv`.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
import pandas as pd
from IPython.display import HTML, Markdown

from replication import figures, pages, results
from replication.figures import step_table
from replication.paths import RESULTS, ROOT

pages.open_page(preset)
stored = {path.stem: pd.read_csv(path) for path in (ROOT / "benchmarks" / "results").glob("*.csv")}
cpu, gpu = stored["cpu"], stored.get("gpu")


# %% tags=["remove-cell"]
def every(rows):
    rows = rows.dropna(subset="ms").sort_values(["method", "dead", "n", "ms"])
    found = rows[["method", "dead", "n", "implementation", "precision"]].astype({"n": int})
    return found.assign(
        **{"ms a step": rows.ms.round(2), "MiB": (rows.peak_gib * 1024).round(1), "in floors": rows.ratio_to_floor}
    )


# %% [markdown]
# ## What is timed
#
# - **A step** is everything the training loop does to one batch: objective, gradients, projection, Adam, unit norm, counts
#   of dead latents and AuxK. Loading data is not in it. Each library runs its *own* loop, unpatched, and pulls batches
#   from ours; a step is the time between two pulls.
# - **Data** are the same for all: sums of 32 draws from $8d$ directions with Zipf frequencies, plus a constant vector and
#   noise.
# - **10 % dead** means that a tenth of the latents sleep, so that AuxK has work at every step, as it has during most of a
#   real run. The driver checks that they slept on and that AuxK moved them.
# - **One sitting**: every implementation takes its turn at every size, in a fresh process, twice. A number is the median
#   of 20 steps after a warm-up, the better of the two rounds. Other programs were idle.
# - **Precision** is that of the matrix products. fp32 is what the other libraries ship; where one has an option for bf16
#   that works on the device, it has a second row.
#
# **Plain autograd** is the TopK equation as one would write it first: dense latents, fp32, PyTorch's own Adam. **The
# floor** is what a TopK step must do at least on this machine, from three measured numbers: one encoder product, four
# gathers of $k$ rows a token, and, at the speed of a copy, one read of the pre-activations, one write of the gradients
# and Adam's 28 bytes per weight. It leaves out AuxK, the loss and PyTorch's own overhead of a few microseconds an
# operation, which weighs most at the smallest size.
#
# ## On a CPU

# %% tags=["remove-input"]
versions = cpu[cpu.ms.notna() & (cpu.implementation != "floor")].drop_duplicates("implementation")
versions = ", ".join(
    f"{row.implementation} {row.version}" for row in versions.itertuples() if "," not in row.implementation
)
pages.facts(
    {"machine": cpu.device.iloc[0], "measured": cpu.date.iloc[0], "batch": "1,024 tokens", "versions": versions}
)

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels, TopK, BatchTopK and JumpReLU: milliseconds of a training step against the number of latents, both on logarithmic axes, for this library in colour, plain autograd in black, three other libraries in grey, and the dotted floor."}, "figure": {"name": "fig-speed-cpu", "caption": "Time of one training step on a CPU; lower is better. Solid: products in bf16; dashed: in fp32. The largest size has wider activations as well and a k of 32 instead of 16, so that its step is longer for two reasons. The dotted floor is that of a TopK step without AuxK in every panel."}}
figures.step_times(cpu)
# %% [markdown]
# This library's step in milliseconds and in floors, and how many times as long the others take, each in its faster
# precision: 3× means that this library is three times as fast.

# %% tags=["remove-input"]
pages.shown(step_table(cpu))
# %% [markdown]
# Every row, with the memory that it needed at most above what was in use before the autoencoder was built: weights, Adam's
# moments and everything that a step makes.

# %% tags=["remove-input"]
pages.shown(every(cpu))
# %% [markdown]
# Not every row does the same work. *eai-sparsify* is timed with Adam and AuxK like the others; its own *defaults* are sign
# SGD in a schedule-free wrapper and no AuxK. The gradient of its AuxK reaches the decoder only. *sae-lens* leaves the norms
# of decoder rows free and rescales latents by them. JumpReLU has no AuxK anywhere. top-AFA has no counterpart in a
# released package.


# %% tags=["remove-cell"]
def left_out(table, column):
    lines = [f"- {row.implementation}: {row.note}" for row in table[table[column].isna()].itertuples()]
    return Markdown("**Left out.**\n\n" + "\n".join(lines) if lines else "No library was left out.")


# %% tags=["remove-input"]
left_out(cpu, "ms")

# %% [markdown]
# ## Memory
#
# What a training of 131,072 latents ($d=768$, $k=32$, 10 % of the latents dead) needs at most, from before the first weight
# is drawn to the end of a third step. In float32 weights and Adam's moments are 2.25 GiB and the two gradients 0.75. The
# untrained autoencoder that this library carries along as a control is 0.75 GiB. No other library keeps one, and on a GPU
# it waits on the host, so there is a row without it. The batch of 4,096 tokens is that of the goals for a GPU, where only
# this library and the leanest other one are measured.


# %% tags=["remove-cell"]
def peaks(memory):
    rows = memory.dropna(subset="peak_gib").sort_values(["batch", "peak_gib"])
    found = rows[["batch", "implementation", "version", "precision"]].astype({"batch": int})
    return found.assign(GiB=rows.peak_gib.round(2))


# %% tags=["remove-input"]
memory = stored["cpu_memory"]
pages.shown(peaks(memory))

# %% tags=["remove-input"]
left_out(memory, "peak_gib")

# %% [markdown]
# ## Where the time goes

# %% tags=["remove-input"] mystnb={"image": {"alt": "One horizontal bar per dictionary size, divided into the shares of encoder product, top-k, decode, gradients, optimiser with projection, the rest, and AuxK."}, "figure": {"name": "fig-speed-parts", "caption": "Parts of this library's TopK step on a CPU with 10 % of the latents dead. AuxK is the difference between a step with dead latents and one without; the rest is what the parts, timed one by one, do not explain: loss, counters, autograd and Python."}}
figures.step_parts(stored["cpu_parts"])
# %% [markdown]
# ## On a GPU
#
# The library's goals for one H200 ($d=768$, $k=32$, 4,096 tokens a batch, AuxK at work on 10 % dead latents) are steps of
# at most 1.2, 1.9, 5.0 and 20 ms for 12,288, 32,768, 131,072 and 524,288 latents.

# %% tags=["remove-input"]
HTML("<p>They have not been measured: there is no <code>gpu.csv</code> yet.</p>") if gpu is None else HTML(
    f"<p>Measured on {gpu.device.iloc[0]}, {gpu.date.iloc[0]}:</p>{pages.shown(step_table(gpu)).data}{pages.shown(every(gpu)).data}"
)

# %% [markdown]
# ## Does the fast step train as well?
#
# The same run by both steps, on the same activations, seeds and tokens, measured on held-out activations: *replication*
# as it trains everywhere in this book, *plain autograd* as above, in fp32. A faster step that trained worse would have
# a mean difference that stands out from the spread over seeds.


# %% tags=["remove-cell"]
def compared(quality):
    measured = ["nmse", "fvu", "l0", "dead", "dead_heldout"]
    means = quality.groupby("implementation")[measured].mean()
    means.loc["replication minus plain"] = means.loc["replication"] - means.loc["plain autograd"]
    plain = quality[quality.implementation == "plain autograd"]
    means.loc["standard deviation over seeds (plain)"] = plain[measured].std()
    return means.round(4).reset_index(names="").rename(columns={"dead_heldout": "dead, held out"})


# %% tags=["remove-input"]
quality = stored.get("quality")
Markdown("Not measured yet: `make bench` writes `quality.csv`.") if quality is None else pages.shown(compared(quality))

# %% [markdown]
# ## What a sweep costs
#
# Stored rows know how long their training took: these are the sums over the tables in `data/results`, data loading
# included, evaluation and the language model left out.

# %% tags=["remove-cell"]
rows = [row for path in sorted(RESULTS.glob("*.jsonl")) for row in results.read(path).values()]
rows = pd.DataFrame(rows).dropna(subset=["seconds", "architecture"])
sums = {"runs": ("key", "size"), "minutes": ("seconds", "sum"), "tokens": ("tokens", "sum")}
costs = rows.groupby(["paper", "preset", "architecture"]).agg(**sums).reset_index()
costs["minutes"], costs["tokens a second"] = costs.minutes / 60, (costs.tokens / costs.minutes).astype(int)

# %% tags=["remove-input"]
pages.shown(costs.drop(columns="tokens").round(1))

# %% tags=["remove-input"]
pages.facts({"computed on": ", ".join(sorted(rows.device.unique()))})
# %% [markdown]
# ## Measure it again
#
# `make bench` creates an environment for each library under `data/cache/benchmarks` on first use, with the versions that
# `benchmarks/environments.py` bounds, then trains both steps for the table of quality, and takes about twenty minutes
# on two cores after that. Run it on an idle machine: with one other busy process on two cores, a step can take ten times as long.
