"""What every token of a Python file is, by Python's own lexer and parser: the truth that code has and prose lacks."""

import ast
import builtins
import io
import itertools
import keyword
import platform
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

LABELS = (
    "in_string",
    "in_fstring",
    "in_docstring",
    "in_comment",
    "keyword",
    "builtin_name",
    "definition_name",
    "argument_name",
    "keyword_argument",
    "attribute",
    "decorator",
    "import_statement",
    "number",
    "operator",
    "indentation",
)
DEPTHS = ("indent_depth", "paren_depth")

DELIMITERS = frozenset(["(", ")", "[", "]", "{", "}", ",", ":", ";", ".", "...", "->"])
WHITESPACE = np.frombuffer(b" \t\n\r\f\v", dtype=np.uint8)
# By home module: an interactive shell and `site` add names to `builtins` that are not part of the language.
BUILTIN_NAMES = frozenset(
    name
    for name, value in vars(builtins).items()
    if not name.startswith("_") and getattr(value, "__module__", "builtins") in ("builtins", "io", "_io")
)

Span = tuple[str, int, int]  # label, first byte, one past the last byte


class Lexeme(NamedTuple):
    """A token of Python's lexer, with its place in UTF-8 bytes."""

    kind: int
    string: str
    start: int
    end: int


def token_labels(ids: np.ndarray, tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """What every token of one Python document is, by `tokenize` and `ast`: arrays of len(ids), keys LABELS + DEPTHS.

    `ids` is one whole document of a byte-level tokenizer; a leading special token (bos) is allowed and carries nothing.
    A token has a boolean label when a non-whitespace character of it carries the label (for indentation: any
    character); so a token of whitespace only is never in a string. A character carries:

    in_string          a string or bytes literal, prefix and quotes included, docstrings and f-strings too
    in_fstring         the same, f-strings only; the code between their braces is string here and gets no other label
    in_docstring       the string that opens the body of a module, class or function
    in_comment         a comment from its #
    keyword            a reserved word of this Python (True, False, None and the words and, or, not, in, is included;
                       the soft ones such as match are not)
    builtin_name       a variable that is read and has the name of a builtin (no scoping: a shadowed one counts too)
    definition_name    the name after def or class
    argument_name      a parameter's name in the signature of a def or lambda (not where the body uses it)
    keyword_argument   the name before = in a call or in the header of a class
    attribute          the name after the dot of an attribute access (the dots of imports are no such access)
    decorator          the line of a decorator from @ to its end, all but comments
    import_statement   an import statement from its first to its last character
    number             a number literal, without sign
    operator           an operator, also the = of assignments (+=, :=), defaults and keyword arguments and the @ of a
                       decorator; not: brackets, commas, colons, semicolons, dots, ->
    indentation        whitespace at the start of a line on which code or a comment starts, continuation lines included;
                       not in blank lines and not inside strings

    The integers (int32) are those of a token's last byte. indent_depth: blocks around the statement, changing at the
    start of its line; comments and blank lines have that of the statement before. paren_depth: open ( [ {, where an
    opening bracket and its closing one count as inside.

    ValueError naming the problem when the ids are no byte-level tokens of a text or the text is not valid Python.
    """
    text, ends = decode_spans(ids, tokenizer)
    raw, place = text.encode(), Places(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the document's own: invalid escapes are no problem of the caller
            tree = ast.parse(text)
        lexemes = list(lex(text, place))
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise ValueError(f"not valid Python {platform.python_version()}: {type(error).__name__}: {error}") from error
    carried = {label: np.zeros(len(raw), dtype=bool) for label in LABELS}
    for label, start, end in [*lexical_spans(lexemes), *decorator_spans(lexemes), *syntax_spans(tree, lexemes, place)]:
        carried[label][start:end] = True
    blank = np.isin(np.frombuffer(raw, dtype=np.uint8), WHITESPACE)
    for label in LABELS:
        carried[label] &= ~blank
    lines = list(line_starts(lexemes, raw))
    for start, end, _ in lines:
        carried["indentation"][start:end] = True
    depths = {
        "indent_depth": _depth(((start, change) for start, _, change in lines), len(raw)),
        "paren_depth": _depth(paren_changes(lexemes), len(raw)),
    }
    starts = np.concatenate(([0], ends[:-1]))
    labels = {label: _any_in(carried[label], starts, ends) for label in LABELS}
    return labels | {name: np.where(ends > starts, depths[name][ends - 1], 0).astype(np.int32) for name in DEPTHS}


def decode_spans(ids: np.ndarray, tokenizer: Tokenizer) -> tuple[str, np.ndarray]:
    """The text of byte-level tokens and the byte at which each token ends; a leading special token has no bytes.

    In a byte-level vocabulary every character of a piece stands for one byte, so a piece is as long as its bytes.
    """
    ids = [int(token) for token in ids]
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    skip = 1 if ids and ids[0] in special else 0
    text = tokenizer.decode(ids[skip:], skip_special_tokens=False)
    lengths = [0] * skip + [len(tokenizer.id_to_token(token) or "") for token in ids[skip:]]
    if not text or "\r" in text.replace("\r\n", ""):
        raise ValueError("the ids decode to no text, or to one with bare carriage returns")
    if sum(lengths) != len(text.encode()):
        raise ValueError(
            f"the ids are {sum(lengths)} bytes but decode to {len(text.encode())}: not byte-level, or cut off"
        )
    return text, np.cumsum(lengths)


class Places:
    """Line and column, as the lexer (characters) and the parser (bytes) count them, to one byte offset."""

    def __init__(self, text: str):
        self.lines = text.split("\n")
        self.starts = [0, *itertools.accumulate(len(line.encode()) + 1 for line in self.lines)]

    def characters(self, row: int, column: int) -> int:
        return self.starts[row - 1] + len(self.lines[row - 1][:column].encode())

    def bytes(self, row: int, column: int) -> int:
        return self.starts[row - 1] + column


LAYOUT = (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE)
LEXED = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP, tokenize.COMMENT)


def lex(text: str, place: Places) -> Iterator[Lexeme]:
    """Names, numbers, strings, operators, comments, and the layout (empty spans); an f-string is one STRING.

    From Python 3.12 on the lexer splits f-strings into parts; joined again here, so that all versions label alike.
    """
    opens, closes = getattr(tokenize, "FSTRING_START", None), getattr(tokenize, "FSTRING_END", None)
    fstrings: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == opens:
            fstrings.append(token)
        elif token.type == closes:
            first = fstrings.pop()
            if not fstrings:
                yield Lexeme(
                    tokenize.STRING, first.string, place.characters(*first.start), place.characters(*token.end)
                )
        elif fstrings:
            continue
        elif token.type in LEXED:
            # Early 3.12 misplaces the end of multi-line strings outside ASCII; start and length are right everywhere.
            start = place.characters(*token.start)
            yield Lexeme(token.type, token.string, start, start + len(token.string.encode()))
        elif token.type in LAYOUT:
            yield Lexeme(token.type, "", 0, 0)


def lexical_spans(lexemes: list[Lexeme]) -> Iterator[Span]:
    """The labels that a lexeme and the one before it decide."""
    plain = {tokenize.COMMENT: "in_comment", tokenize.NUMBER: "number", tokenize.STRING: "in_string"}
    previous = ""
    for kind, string, start, end in lexemes:
        if kind in plain:
            yield plain[kind], start, end
        if kind == tokenize.STRING and "f" in re.match("[A-Za-z]*", string)[0].lower():
            yield "in_fstring", start, end
        if kind == tokenize.NAME and keyword.iskeyword(string):
            yield "keyword", start, end
        if kind == tokenize.NAME and previous in ("def", "class"):
            yield "definition_name", start, end
        if kind == tokenize.OP and string not in DELIMITERS:
            yield "operator", start, end
        previous = string


def decorator_spans(lexemes: list[Lexeme]) -> Iterator[Span]:
    """All lexemes but comments of logical lines that open with @."""
    opening, decorator = True, False
    for kind, string, start, end in lexemes:
        if kind in LAYOUT:
            opening, decorator = True, False
        elif kind != tokenize.COMMENT:
            decorator = decorator or (opening and string == "@")
            opening = False
            if decorator:
                yield "decorator", start, end


def syntax_spans(tree: ast.AST, lexemes: list[Lexeme], place: Places) -> Iterator[Span]:
    """The labels that the parser decides."""
    names = [lexeme for lexeme in lexemes if lexeme.kind == tokenize.NAME]
    end_of, start_of = {name.start: name.end for name in names}, {name.end: name.start for name in names}
    for node in walk_outside_fstrings(tree):
        if docstring := _docstring(node):
            yield "in_docstring", *_ends_of(docstring, place)
        match node:
            case ast.arg():
                label = "argument_name"
            case ast.keyword(arg=str()):
                label = "keyword_argument"
            case ast.Name(id=name, ctx=ast.Load()) if name in BUILTIN_NAMES:
                label = "builtin_name"
            case ast.Attribute():
                end = _ends_of(node, place)[1]
                yield "attribute", start_of[end], end
                continue
            case ast.Import() | ast.ImportFrom():
                yield "import_statement", *_ends_of(node, place)
                continue
            case _:
                continue
        start = _ends_of(node, place)[0]
        yield label, start, end_of[start]


def walk_outside_fstrings(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those in f-strings, whose places the parser gives wrongly before Python 3.12."""
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        yield node
        nodes.extend(child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.JoinedStr))


def _docstring(node: ast.AST) -> ast.Constant | None:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        match node.body[:1]:
            case [ast.Expr(value=ast.Constant(value=str()) as constant)]:
                return constant
    return None


def _ends_of(node: ast.AST, place: Places) -> tuple[int, int]:
    return place.bytes(node.lineno, node.col_offset), place.bytes(node.end_lineno, node.end_col_offset)


def line_starts(lexemes: list[Lexeme], raw: bytes) -> Iterator[tuple[int, int, int]]:
    """(first byte of the line, first byte of its code, change of block depth) of lines on which a lexeme starts."""
    previous, change = 0, 0
    for kind, _, start, end in lexemes:
        if kind in LAYOUT:
            change += {tokenize.INDENT: 1, tokenize.DEDENT: -1}.get(kind, 0)
            continue
        newline = raw.rfind(b"\n", previous, start)
        if newline >= 0 or previous == 0:
            yield newline + 1, start, change
            change = 0
        previous = end


def paren_changes(lexemes: list[Lexeme]) -> Iterator[tuple[int, int]]:
    """(byte, change of depth): up at an opening bracket, down behind a closing one."""
    for kind, string, start, end in lexemes:
        if kind == tokenize.OP and string in ("(", "[", "{"):
            yield start, 1
        if kind == tokenize.OP and string in (")", "]", "}"):
            yield end, -1


def _depth(changes: Iterable[tuple[int, int]], length: int) -> np.ndarray:
    """Depth at each of `length` bytes: the running sum of the changes."""
    steps = np.zeros(length + 1, dtype=np.int64)
    for byte, change in changes:
        steps[byte] += change
    return np.cumsum(steps[:-1])


def _any_in(carried: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether any byte in [start, end) carries the label."""
    count = np.concatenate(([0], np.cumsum(carried)))
    return count[ends] > count[starts]
