"""A dashboard of latents as files that open without a server, and some of its latents as static HTML for a page.

What is shown is measured by `evaluate.dashboard`. Data are scripts (a page that is opened as a file may read nothing
else): `meta.js`, `text.js` with the text all contexts are cut from, `latents-0000.js` ... with CHUNK latents each, read
when one of them is looked at. Style and behaviour are in book/_static/dashboard. Tokens are arbitrary code: here they
are escaped, there they only ever become text nodes.
"""

import base64
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
from IPython.display import HTML

from replication.evaluate.dashboard import LEVELS
from replication.paths import BOOK

ASSETS = BOOK / "_static" / "dashboard"  # style and behaviour, which the builder of the book puts beside the data

STATIC = (
    Path("_static") / "dashboard"
)  # beside the page, as Sphinx copies it: a notebook runs where it is rendered from
CHUNK = 128
EDGES = [10 ** (-4 + i / 4) for i in range(17)]  # of the histogram of densities
BEFORE, AFTER = 18, 6  # tokens shown around the active one
QUARTERS = ("top", "lowest quarter", "second quarter", "third quarter", "highest quarter")
INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="../latent.css">
<link rel="stylesheet" href="../dashboard.css">
<script src="../dashboard.js"></script>
</head>
<body>
<header>
<p><a href="../../../book/{page}.html">Back to the book</a></p>
<h1>{title}</h1>
<p>{facts}</p>
</header>
<form id="form" role="search" aria-label="Latents">
<label>Search <input id="query" type="search" placeholder="17, import, docstring" autocomplete="off"
  spellcheck="false" autocapitalize="off"></label>
<label>among <select id="where">
<option value="all">everything</option>
<option value="on">tokens it is active on</option>
<option value="promoted">tokens it promotes</option>
<option value="label">properties it follows</option>
<option value="number">numbers</option>
</select></label>
<label>Sort by <select id="order">
<option value="number">number</option>
<option value="density">density, densest first</option>
<option value="largest">largest activation</option>
<option value="removed">effect of its removal</option>
<option value="gain">how well it follows its property</option>
</select></label>
<button type="button" id="random">Random latent</button>
</form>
<p id="count" role="status"></p>
<noscript><p>The dashboard needs JavaScript. Some of its latents stand on the page of the book.</p></noscript>
<main>
<div id="results" role="region" aria-label="Latents found" tabindex="0">
<table>
<thead><tr><th scope="col">latent</th><th scope="col">density</th><th scope="col">largest</th>
<th scope="col">removal, nats</th><th scope="col">follows</th></tr></thead>
<tbody id="lines"></tbody>
</table>
<button type="button" id="more" hidden>Show more</button>
</div>
<article id="latent" class="latent" tabindex="-1" aria-label="The latent chosen"></article>
</main>
<script>dashboard.start();</script>
</body>
</html>
"""


def write(found: dict, name: str, page: str, folder: Path = STATIC) -> str:
    """Write the dashboard of what `evaluate.dashboard.described` found into `folder`/name, afresh.

    `page` is the page of the book that it leads back to. Returns its address as seen from a page.
    """
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    latents = found["sae"]["latents"]
    title = f"{len(latents):,} latents, one by one"
    (place / "index.html").write_text(
        SHELL.format(title=title, page=html.escape(page), facts=html.escape(facts(found))), encoding="utf-8"
    )
    _script(place, "meta", meta(found))
    _script(place, "text", text(found))
    for start in range(0, len(latents), CHUNK):
        _script(place, f"latents-{start // CHUNK:04d}", latents[start : start + CHUNK])
    return f"../{folder.as_posix()}/{name}/index.html"


def _script(place: Path, name: str, data: object) -> None:
    """`data` as a script that hands it to the dashboard. In JSON a "<" can only stand in a string: it is escaped."""
    content = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    (place / f"{name}.js").write_text(f"dashboard.receive({json.dumps(name)},{content});\n", encoding="utf-8")


def facts(found: dict) -> str:
    """One sentence on what the dashboard shows."""
    return (
        f"The latents of one {found['architecture']} autoencoder, sparsity {found['sparsity']:g}, on the activations "
        f"of {found['model']} at {found['hook']}. Activations, contexts and properties are from "
        f"{np.size(found['tokens']):,} tokens of held-out text ({len(found['files'])} files). "
        f"{len(found['untrained']['latents'])} random latents of the same autoencoder before its training show what "
        "chance looks like."
    )


def meta(found: dict) -> dict:
    """What the list, the search and every latent need; a column of "index" has an entry per latent, controls last."""
    shown = found["sae"]["latents"] + found["untrained"]["latents"]
    density = [one["density"] for one in found["sae"]["latents"]]
    return {
        "n": len(density),
        "names": [str(one["number"]) for one in found["sae"]["latents"]]
        + [f"u{one['number']}" for one in found["untrained"]["latents"]],
        "chunk": CHUNK,
        "levels": LEVELS,
        "context": len(found["tokens"][0]),
        "tokens": int(np.size(found["tokens"])),
        "vocabulary": found["vocabulary"],
        "files": found["files"],
        "labels": [{"name": one["name"], "share": one["share"]} for one in found["labels"]],
        "largest": {of: found[of]["largest"] for of in ("sae", "untrained")},
        "densities": {"edges": EDGES, "counts": densities(density)},
        "untrained": found["untrained"]["latents"],
        "index": {
            "density": [one["density"] for one in shown],
            "largest": [one["largest"] for one in shown],
            "removed": [one["removed"] for one in shown],
            "label": [one["label"] and one["label"][0] for one in shown],
            "gain": [one["label"] and round(one["label"][1] - one["label"][2], 4) for one in shown],
            "on": [
                sorted({found["tokens"][block][at] for kind, block, at, *_ in one["contexts"] if kind == 0})
                for one in shown
            ],
            "promoted": [sorted(token for token, _ in one["promoted"]) for one in shown],
        },
    }


def densities(density: list[float]) -> list[int]:
    """How many latents are never active, and how many fall between EDGES; below the first edge counts as the first."""
    bins = np.searchsorted(EDGES, [value for value in density if value > 0], side="right").clip(1, len(EDGES))
    return [density.count(0), *np.bincount(bins, minlength=len(EDGES) + 1)[1:].tolist()]


def text(found: dict) -> dict:
    """The blocks of text as little-endian numbers of the vocabulary in base64."""
    size = 2 if len(found["vocabulary"]) <= 2**16 else 4
    raw = np.array(found["tokens"], dtype=f"<u{size}").tobytes()
    return {"bytes": size, "data": base64.b64encode(raw).decode()}


# Latents on a page


def best_of_labels(found: dict, count: int) -> list[int]:
    """The latents that follow a known property of the text best, for the `count` properties with the highest F1 above
    chance; a latent that is the best of several counts once."""
    return list(dict.fromkeys(one["latent"] for one in _by_gain(found)))[:count]


def _by_gain(found: dict) -> list[dict]:
    """The properties that the text has, those first that a latent follows best (F1 above chance)."""
    present = [one for one in found["labels"] if one["share"]]
    return sorted(present, key=lambda one: one["scores"][1] - one["scores"][0])


def labels_table(found: dict, address: str) -> HTML:
    """For every known property of the text, the latent that follows it best, and the control."""
    names = ("property", "share", "latent", "precision", "recall", "F1", "by chance", "above chance", "untrained")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = ""
    for one in _by_gain(found):
        f1, chance, precision, recall = one["scores"]
        numbers = (precision, recall, f1, chance, f1 - chance, one["untrained"])
        latent = str(one["latent"])
        cells = [html.escape(one["name"]), percent(one["share"]), _link(address, latent, latent)]
        body += "".join(["<tr>", *(f"<td>{cell}</td>" for cell in [*cells, *(f"{n:.2f}" for n in numbers)]), "</tr>"])
    return HTML(
        '<div class="table-scroll" tabindex="0"><table class="rows numbers">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def door(found: dict, address: str) -> HTML:
    """The way to the dashboard."""
    text = f"Open the dashboard: {len(found['sae']['latents']):,} latents to search and sort"
    return HTML(f'<p><a href="{html.escape(address)}"><b>{text}</b></a></p><p>{html.escape(facts(found))}</p>')


def cards(found: dict, address: str, numbers: list[int] | None = None, of: str = "sae") -> HTML:
    """Latents of the trained ("sae") or the "untrained" autoencoder as static HTML; all that `found` holds if None."""
    by_number = {one["number"]: one for one in found[of]["latents"]}
    chosen = [by_number[number] for number in (by_number if numbers is None else numbers)]
    style = '<link rel="stylesheet" href="../_static/dashboard/latent.css">'
    return HTML(style + "".join(_card(found, address, one, of) for one in chosen))


def _card(found: dict, address: str, one: dict, of: str) -> str:
    """Three of the largest activations and one from each quarter of the others: the top ones alone flatter a latent."""
    name, title = str(one["number"]), f"Latent {one['number']}"
    if of == "untrained":
        name, title = f"u{name}", f"{title} of the untrained autoencoder"
    kinds = [[context for context in one["contexts"] if context[0] == kind] for kind in range(len(QUARTERS))]
    contexts = [*kinds[0][:3], *(context for kind in kinds[:0:-1] for context in kind[:1])]
    writes = "".join(_chip(found["vocabulary"][token], f" {signed(score, 1)}") for token, score in one["promoted"][:5])
    return (
        f'<article class="latent"><h3>{_link(address, name, title)}</h3>'
        f"<p>{html.escape(_summary(found, one))}</p>"
        f"<ol>{''.join(_context(found, context, one['largest']) for context in contexts)}</ol>"
        f"<p>Promotes {writes}</p></article>"
    )


def _summary(found: dict, one: dict) -> str:
    said = f"Active on {percent(one['density'])} of tokens. "
    if one["label"]:
        label, f1, chance, precision, _ = one["label"]
        about = found["labels"][label]
        said += (
            f"Follows “{about['name']}” best: F1 {f1:.2f}, by chance {chance:.2f}; {percent(precision)} of its active "
            f"tokens have it, of all tokens {percent(about['share'])}. "
        )
    if one["removed"] is not None:
        said += f"Its removal adds {signed(one['removed'])} nats, that of a random direction {signed(one['random'])}."
    return said


def _context(found: dict, context: list, largest: float) -> str:
    kind, block, position, document, value, active, *_ = context
    ids, levels = found["tokens"][block], dict(zip(active[::2], active[1::2], strict=True))
    line = []
    for at in range(max(0, position - BEFORE), min(len(ids), position + AFTER + 1)):
        text = html.escape(visible(found["vocabulary"][ids[at]]))
        if at in levels:
            tag, kind_of = ("mark", "") if at == position else ("span", ' class="on"')
            share = levels[at] / LEVELS
            look = f'title="activation {share * largest:.2g}" style="background: rgba(245, 130, 32, {share:.2f})"'
            text = f"<{tag}{kind_of} {look}>{text}</{tag}>"
        line.append(text)
    where = f"{value:.2g}, {QUARTERS[kind]}, {found['files'][document]}"
    return (
        f'<li class="context"><span class="where">{html.escape(where)}</span>'
        f'<code class="tokens">{"".join(line)}</code></li>'
    )


def _chip(token: str, after: str) -> str:
    return f'<span class="token"><code>{html.escape(visible(token))}</code>{after}</span>'


def _link(address: str, latent: str, text: str) -> str:
    return f'<a href="{html.escape(address)}#latent={latent}">{html.escape(text)}</a>'


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a minus as wide as the plus, and no minus before zero."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "\u2212")


def percent(share: float) -> str:
    """Two digits, without a power of ten."""
    return f"{float(f'{100 * share:.2g}'):.10g} %"


def visible(text: str) -> str:
    """White space and control characters as signs, as the dashboard shows them: a run of spaces as dots."""
    signs = text.replace("\t", "\u21e5").replace("\r", "\u240d").replace("\n", "\u21b5")
    dotted = re.sub("^ +$|  +", lambda run: "\u00b7" * len(run[0]), signs)
    return INVISIBLE.sub(lambda character: f"\\x{ord(character[0]):02x}", dotted)
