"""Labels of code tokens, checked by hand on one snippet."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from replication.code_labels import DEPTHS, LABELS, token_labels
from replication.paths import MODELS


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(MODELS / "tokenizer.json"))


SNIPPET = '''"""Møde"""
import os.path as p  # note

@p.cache(size=2)
class Box(Base, metaclass=Meta):
    """Doc.

    more"""

    async def area(self, w: int = 3, *rest, **more):
        # hé
        key = lambda z: z.real
        if not len(self.items) >= -1.5:

            return f"é{w + 1}" + b'x'
        return print(key, end="",
                     sep=None)
'''
# Pieces of SNIPPET's tokens, by hand; é and ø are two tokens of one byte each.
EXPECTED = {
    "in_string": ['"""', "M", "\\xc3", "\\xb8", "de", '"""', ' """', "Doc", ".", " more", '"""']
    + [" f", '"', "\\xc3", "\\xa9", "{", "w", " +", " 1", '}"', " b", "'", "x", "'", '="",'],
    "in_fstring": [" f", '"', "\\xc3", "\\xa9", "{", "w", " +", " 1", '}"'],
    "in_docstring": ['"""', "M", "\\xc3", "\\xb8", "de", '"""', ' """', "Doc", ".", " more", '"""'],
    "in_comment": [" #", " note", " #", " h", "\\xc3", "\\xa9"],
    "keyword": ["import", " as", "class", " async", " def", " lambda", " if", " not", " return", " return", "None"],
    "builtin_name": [" int", " len", " print"],
    "definition_name": [" B", "ox", " are", "a"],
    "argument_name": ["self", " w", "rest", "more", " z"],
    "keyword_argument": ["size", " meta", "class", " end", " sep"],
    "attribute": ["cache", "real", "items"],
    "decorator": ["@", "p", ".", "cache", "(", "size", "=", "2", ")"],
    "import_statement": ["import", " os", ".", "path", " as", " p"],
    "number": ["2", " 3", "1", ".", "5"],
    "operator": ["@", "=", "=", " =", " *", " **", " =", " >=", " -", " +", '="",', "="],
    "indentation": ["\n   ", ' """', "\n\n   ", " async", "\n       ", " #", "\n       ", " key", "\n       ", " if"]
    + ["\n\n           ", " return", "\n       ", " return", "\n                    ", " sep"],
}


def labelled(text: str, tokenizer) -> tuple[list[str], dict]:
    """Bytes of each token, written as text, behind a bos; their labels."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    raw, pieces, start = text.encode(), [""], 0
    for piece in encoding.tokens:
        pieces.append(raw[start : start + len(piece)].decode(errors="backslashreplace"))
        start += len(piece)
    return pieces, token_labels(np.array([0, *encoding.ids]), tokenizer)


def depth_of(text: str, tokenizer, name: str) -> list[tuple[str, int]]:
    pieces, labels = labelled(text, tokenizer)
    return list(zip(pieces, labels[name].tolist(), strict=True))


def test_every_label_on_a_snippet(tokenizer):
    pieces, labels = labelled(SNIPPET, tokenizer)
    assert tuple(labels) == LABELS + DEPTHS and tuple(EXPECTED) == LABELS
    for label in LABELS:
        assert labels[label].dtype == bool and labels[label].shape == (len(pieces),)
        carried = [piece for piece, is_carried in zip(pieces, labels[label], strict=True) if is_carried]
        assert carried == EXPECTED[label], label


def test_indent_depth_changes_at_the_start_of_a_line(tokenizer):
    text = "if x:\n    # why\n    for y in z:\n        pass\n\nw = 1\n"
    depths = dict(depth_of(text, tokenizer, "indent_depth"))  # the last token of each spelling
    assert depths["if"] == depths[" why"] == 0  # a comment has the depth of the statement before it
    assert depths[" for"] == depths[" z"] == 1 and depths[" pass"] == 2 and depths[" 1"] == 0
    continued = dict(depth_of("def f():\n    x = [\n1]\n", tokenizer, "indent_depth"))
    assert continued["1"] == 1  # a continuation line has the depth of its statement


def test_paren_depth_counts_brackets_inside_themselves(tokenizer):
    depths = depth_of("x = f ( [ 1 , { 2 } ] ) + 3\ny = ')'\n", tokenizer, "paren_depth")
    assert [depth for piece, depth in depths if piece.strip() in list("([1{2}])+3")] == [1, 2, 2, 3, 3, 3, 2, 1, 0, 0]
    assert depths[-1][1] == 0  # brackets in strings count nothing


@pytest.mark.parametrize(
    ("text", "label", "expected"),
    [
        ("x = len\nlen = y.open\n", "builtin_name", [" len"]),  # read, not assigned, no attribute
        ("from . import a, b as c\n", "attribute", []),
        ('x = """\n  a"""; y = 1\n', "indentation", []),  # the string's own whitespace
        ("def f():\n    x = 1\n    'no doc'\n", "in_docstring", []),
        ("a = b @ c\n", "decorator", []),
        ("a = b @ c\n", "operator", [" =", " @"]),
        ("x = f'{len(a.b) if c else 3}'\n", "attribute", []),  # code inside f-strings is string only
        ("x = f'{len(a.b) if c else 3}'\n", "keyword", []),
        ("if x:\r\n\tpass\r\n", "keyword", ["if", "pass"]),
    ],
)
def test_labels_in_corners(text, label, expected, tokenizer):
    pieces, labels = labelled(text, tokenizer)
    assert [piece for piece, carried in zip(pieces, labels[label], strict=True) if carried] == expected


def test_whitespace_alone_carries_no_label_but_indentation(tokenizer):
    pieces, labels = labelled(SNIPPET, tokenizer)
    blank = np.array([not piece.strip() for piece in pieces])
    assert not any(labels[label][blank].any() for label in LABELS if label != "indentation")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("print 'old'\n", "SyntaxError"), ("x = (\n", "not valid Python"), ("x = 1\ry = 2\n", "carriage returns")],
)
def test_a_document_that_does_not_parse_names_the_problem(text, problem, tokenizer):
    ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids)
    with pytest.raises(ValueError, match=problem):
        token_labels(ids, tokenizer)


def test_a_cut_document_is_refused(tokenizer):
    ids = np.array(tokenizer.encode("x = 'é'\n", add_special_tokens=False).ids)
    cut = next(place for place in range(len(ids)) if "\ufffd" in tokenizer.decode(ids[: place + 1].tolist()))
    with pytest.raises(ValueError, match="cut off"):
        token_labels(ids[: cut + 1], tokenizer)
    with pytest.raises(ValueError, match="no text"):
        token_labels(ids[:0], tokenizer)


def test_invalid_escapes_of_a_document_are_no_warning_of_ours(tokenizer):
    _, labels = labelled("x = '\\d'\n", tokenizer)
    assert labels["in_string"].any()
