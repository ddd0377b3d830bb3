"""How the documentation is built: `python -m sphinx -W -n docs build/docs`. Needs no network."""

import sys
from pathlib import Path

from fwi_refine.version import __version__

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "fwi-refine"
copyright = "the authors of fwi-refine"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "formulas",  # the last two are in _extensions
    "command_examples",
]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
smartquotes = False  # they would make a dash of --out
default_role = "code"  # single backticks, as in the docstrings and the help texts
highlight_language = "text"  # blocks of Python and shell say so

napoleon_google_docstring = False  # docstrings are in the form of numpydoc
napoleon_use_rtype = False

# Names that a package only hands on stand on the page of their own module (see _templates), and
# what scikit-learn adds to an estimator refers to its own documentation.
autodoc_default_options = {"exclude-members": "set_score_request, set_fit_request"}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
# Types in signatures are links where they have a page here: others' pages would need the network.
nitpick_ignore_regex = [("py:.*", ".*")]
# shape, samples and the like are attributes of several classes: such a word is no reference
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "fwi-refine"
html_math_renderer = "mathml"
html_copy_source = False
