"""Sphinx configuration; `make docs` executes the notebooks first, then builds with `-W`."""

from importlib.metadata import version as _version

project = "bayesjx"
author = "The bayesjx developers"
copyright = "The bayesjx developers"
version = release = _version("bayesjx")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "sphinx_math_dollar",
    "sphinx-mathjax-offline",  # MathJax 3, among the pages' own files
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "bayesjx"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
mathjax3_config = {"tex": {"inlineMath": [["\\(", "\\)"]], "displayMath": [["\\[", "\\]"]]}}

# docs/run_notebooks.py executed them, and remembers what did not change.
nb_execution_mode = "off"
nb_output_stderr = "remove"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"  # `name` in a docstring is code, and a link where we define that name
autodoc_typehints = "none"  # signatures stay short; the docstrings give the shapes
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autosummary_generate = True
autosummary_imported_members = True  # a package exports what its private files define
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def leave_out_tuple_fields(app, what, name, obj, skip, options):
    """A NamedTuple describes its fields; their own docstrings only number them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def leave_out_metadata_requests(app, what, name, obj, skip, options):
    """What scikit-learn adds to its estimators, with references into its own documentation."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def unfold_one_package(app, pagename, templatename, context, doctree):
    """The sidebar lists the objects of the package that the page belongs to, not of all."""
    if whole := context.get("toctree"):
        context["toctree"] = lambda **options: whole(**options | {"collapse": True})


def setup(app):
    app.connect("autodoc-skip-member", leave_out_tuple_fields)
    app.connect("autodoc-skip-member", leave_out_metadata_requests)
    app.connect("html-page-context", unfold_one_package, priority=400)  # before Furo makes it
