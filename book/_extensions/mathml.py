"""Formulas as MathML, which current browsers draw themselves: a page needs no script from elsewhere."""

import re

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import ExtensionError

SIZES = re.compile(r"\\[bB]igg?[lrm]?(?![A-Za-z])")  # sizes of brackets, which docutils does not know


def mathml(tex: str, *, block: bool) -> str:
    """The <math> element of a formula. An unknown command stops the build and shows the formula."""
    try:
        return tex2mathml(SIZES.sub("", tex), as_block=block)
    except MathError as error:
        raise ExtensionError(f"formula {tex!r}: {error}") from error


def inline(writer, node):
    writer.body.append(f'<span class="mathml">{mathml(node.astext(), block=False)}</span>')
    raise SkipNode


def display(writer, node):
    writer.body.append(f'<div class="mathml">{mathml(node.astext(), block=True)}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
