"""How Sphinx builds the site from what `build_site.py` gathers. Nothing is executed, nothing is fetched."""

import builtins
import os
import re
import tomllib
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EMPTY_HEADING = re.compile(r'<th(?: class="[^"]*")?>(?:<p></p>)?</th>')
CODE = re.compile(r"(`[^`]+`)")  # in docstrings, as in Markdown

project = "Sink-aware pruning, reproduced"
release = PROJECT["version"]
copyright = "the authors, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
suppress_warnings = ["config.cache"]

nb_execution_mode = "off"
nb_render_markdown_format = "gfm"  # outputs hold tables
nb_code_prompt_show = "Show the cell's {type}"  # source, or source and output: `figure_pages.py` folds both
nb_code_prompt_hide = "Hide the cell's {type}"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
default_role = "code"
add_module_names = False

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_extra_path = [os.environ["SITE_FILES"]]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["pages.js"]
html_search_scorer = str(HERE / "static" / "scorer.js")
html_show_search_summary = False  # it fetches every page that it lists
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {"top_of_page_buttons": []}


def plain_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Turn a docstring, which is plain text with `code`, into reStructuredText, in place."""
    parts = CODE.split("\n".join(lines))
    for odd in range(1, len(parts), 2):
        parts[odd] = f"`{parts[odd]}`"
    for even in range(0, len(parts), 2):
        parts[even] = re.sub(r"([\\*|]|_(?=\W|$))", r"\\\1", parts[even])
        if even and parts[even][:1].isalnum():
            parts[even] = rf"\ {parts[even]}"
        parts[even] = re.sub(r"(?m)^(\s*)\\\* ", r"\1* ", parts[even])
    lines[:] = "".join(parts).split("\n")


def builtin_types_stay_plain(app, document: nodes.document) -> None:
    """Take the links from types such as `bytes`, which would lead to an attribute of that name."""
    for node in list(document.findall(addnodes.pending_xref)):
        if hasattr(builtins, node.get("reftarget", "")):
            node.replace_self(node.children)


def named_for_all(app, page: str, template: str, context: dict, doctree) -> None:
    """Give captions their level and folds their own words, and take the heading from empty cells: for readers
    who hear a page.
    """
    navigation = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = navigation.replace('role="heading"', 'role="heading" aria-level="2"')
    if "body" in context:
        body = context["body"].replace(' aria-label="Toggle hidden content"', "")
        context["body"] = EMPTY_HEADING.sub("<td></td>", body)


def math(display: str):
    """Return how a formula becomes MathML, which browsers draw without scripts."""

    def visit(writer, node: nodes.Node) -> None:
        writer.body.append(convert(node.astext(), display=display))
        raise nodes.SkipNode

    return visit, None


def setup(app: Sphinx) -> None:
    """Register what Sphinx does not have."""
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("doctree-read", builtin_types_stay_plain)
    app.connect("html-page-context", named_for_all, priority=900)  # the theme makes the navigation before
    app.add_html_math_renderer("mathml", math("inline"), math("block"))
