"""Render a page that somebody wrote: a Jinja2 template in this folder, with numbers filled in."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Return the environment of all templates: an unknown name is an error, lines of statements vanish."""
    return Environment(
        loader=PackageLoader("sinkprune_companion", "pages"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )


def render(template: str, **values: object) -> str:
    """Return the text of a template of this folder, e.g. `card.md.j2`, with `values` filled in.

    Raises jinja2.UndefinedError for a name that has no value.
    """
    return environment().get_template(template).render(values)
