"""Docstrings and help texts of this project as reStructuredText.

Docstrings are plain text with some habits: backticks around code, formulas and tables indented,
paragraphs of `name: what it is` for arguments, also under a heading that is underlined, and
sessions of Python. All else is text, whatever signs are in it.
Help texts have examples and tables after a \\b, which sphinx-click makes lines that begin with |.
"""

import re
from itertools import groupby

CODE = re.compile(r"(``?)([^`]+)\1")
ENTRY = re.compile(r"(\w[\w*]*(?:, \w[\w*]*)*): (.*)")


def to_rest(lines: list[str]) -> list[str]:
    """The lines of a docstring, without its own indentation."""
    found, was_literal = [], False
    for blank, group in groupby(lines, lambda line: not line.strip()):
        if blank:
            continue
        paragraph = list(group)
        if literal := paragraph[0][0].isspace():
            found += [] if was_literal else ["::", ""]
            found += [f"    {line}" for line in paragraph]
        elif paragraph[0].startswith(">>> "):
            found += paragraph
        else:
            if len(paragraph) > 2 and set(paragraph[1]) == {"-"}:
                found += [f"**{paragraph[0]}**", ""]
                paragraph = paragraph[2:]
            found += entries(paragraph) if ENTRY.match(paragraph[0]) else [text(paragraph)]
        found.append("")
        was_literal = literal
    return found


def entries(paragraph):
    """A list of the names, where each line that is not indented may begin one."""
    items = []
    for line in paragraph:
        match = None if line[0].isspace() else ENTRY.match(line)
        if match:
            items.append([f"**{escaped(match[1])}**: ", [match[2]]])
        else:
            items[-1][1].append(line)
    return [f"* {name}{text(lines)}" for name, lines in items]


def text(lines):
    """One line of text, with nothing in it that reStructuredText would read as markup."""
    whole, found, end = " ".join(line.strip() for line in lines), "", 0
    for code in CODE.finditer(whole):
        found += escaped(whole[end : code.start()]) + f"\\ ``{code[2]}``\\ "
        end = code.end()
    return found + escaped(whole[end:])


def escaped(plain):
    return re.sub(r"([\\*|_`<>])", r"\\\1", plain)


def examples(lines: list[str]) -> list[str]:
    """The lines of a help text, with examples and tables as they were typed."""
    found = []
    for typed, group in groupby(lines, lambda line: line.startswith("| ")):
        if typed:
            found += ["::", "", *(f"    {line[2:]}" for line in group), ""]
        else:
            found += group
    return found


def process_docstring(app, what, name, obj, options, lines):
    lines[:] = to_rest(lines)


def process_help(app, ctx, lines):
    lines[:] = examples(lines)


def setup(app):
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("sphinx-click-process-description", process_help)
    app.connect("sphinx-click-process-epilog", process_help)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
