"""Examples and tables of the commands' help as literal blocks.

They follow a \\b in the help text, of which sphinx-click makes lines that begin with a bar.
"""

from itertools import groupby


def literal_blocks(lines: list[str]) -> list[str]:
    """The lines of a help text, with examples in shell and tables as they were typed."""
    found = []
    for typed, group in groupby(lines, lambda line: line.startswith("| ")):
        if typed:
            block = [line[2:] for line in group]
            shell = any(line.strip().startswith(("fwi-refine", "eval")) for line in block)
            found += [f".. code-block:: {'bash' if shell else 'text'}", ""]
            found += [*(f"    {line}" for line in block), ""]
        else:
            found += group
    return found


def process_help(app, ctx, lines):
    lines[:] = literal_blocks(lines)


def setup(app):
    app.connect("sphinx-click-process-description", process_help)
    app.connect("sphinx-click-process-epilog", process_help)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
