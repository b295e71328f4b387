"""The pages that are written from tables: three in docs, and README's tables of the paper's results.

`python -m sinkprune_core.companion.pages` writes them; a test checks that they are in step with their tables.
"""

from sinkprune_core.companion.models_page import models_page
from sinkprune_core.companion.performance_page import performance_page
from sinkprune_core.companion.results_page import readme_tables, results_page
from sinkprune_core.files import atomic, project_root

BEGIN = "<!-- published: written by `python -m sinkprune_core.companion.pages` -->"
END = "<!-- end of published -->"


def pages() -> dict[str, str]:
    """Return the text of every written page by its path in the repository.

    Raises ValueError where README lacks the markers that its tables stand between.
    """
    readme = (project_root() / "README.md").read_text(encoding="utf-8")
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md must hold the markers {BEGIN} and {END} once each")
    head, rest = readme.split(BEGIN)
    return {
        "docs/results.md": results_page(),
        "docs/models.md": models_page(),
        "docs/performance.md": performance_page(),
        "README.md": f"{head}{BEGIN}\n{readme_tables()}\n{END}{rest.split(END)[1]}",
    }


def main() -> None:
    """Write all pages and print their paths."""
    for name, text in pages().items():
        with atomic(project_root() / name) as partial:
            partial.write_text(text, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
