"""Links of the project's pages as the site needs them."""

import html
import os
import re
import shutil
from pathlib import Path, PurePosixPath

from api_pages import page_of
from PIL import Image

from sinkprune_companion.figures.figures import DARK, DOTS_PER_INCH, NARROW, SHOWN_PER_INCH

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
BADGE = re.compile(r"\[!\[([^\]]*)\]\(https?://[^()\s]+\)\]\(([^()\s]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^()\s]+)\)")
PICTURES = re.compile(r'<picture>.*?<img src="([^"]+)" alt="([^"]*)">.*?</picture>', re.DOTALL)
FENCE = re.compile(r"(^ *```.*?^ *```[^\n]*$)", re.MULTILINE | re.DOTALL)
PLACES = {  # where pages of the project stand
    "README.md": "index.md",  # and further.md, where `Links` is told so
    "figures/claims.md": "claims.md",
    "site/pages/claims.md": "claims.md",
    "site/pages/explorer.md": "explorer.md",
}
MODULE = re.compile(r"(sinkprune(?:_core)?(?:/\w+)*)/((?!__)\w+)\.py")
FOLDERS = {"figures": "figures.md", "figures/findings": "claims.md"}  # that have a page


class LostLinkError(ValueError):
    """A link of a page leads to no file, or to a folder that has no page in the site."""


class Links:
    """Where links of a page lead in the site.

    A link to a page stays one, a module leads to its place among the library's pages, and a picture to the
    cell that made it, as `cells` says: an address by the picture's path. A file that has no page is copied
    into the site and linked as it is. Pictures on other hosts become words, since the site uses no network.
    `sections` are headings of README that stand on another page than the first, with that page.
    """

    def __init__(
        self,
        root: Path,
        target: Path,
        pages: list[str],
        cells: dict[str, str],
        sections: dict[str, str] | None = None,
    ):
        self.root = root
        self.cells = cells
        self.files = target / "files"
        self.pictures = target / "pages"
        self.pages = set(pages)
        self.sections = sections or {}

    def rewritten(self, text: str, page: str, original: str | None = None) -> str:
        """Return the Markdown of `page`, whose links were written for the place `original` in the project.

        Raises LostLinkError for a link that leads nowhere.
        """
        original = original or {site: own for own, site in PLACES.items()}.get(page, page)
        parts = FENCE.split(text)
        for place in range(0, len(parts), 2):
            part = BADGE.sub(r"[\1](\2)", parts[place])
            part = IMAGE.sub(lambda found: self._image(found, page, original), part)
            part = PICTURES.sub(lambda found: self._pictures(found, page, original), part)
            parts[place] = LINK.sub(lambda found: self._link(found, page, original), part)
        return "".join(parts)

    def _target(self, target: str, original: str) -> str | None:
        """Return the path in the project that a relative link leads to; None for all other links."""
        if re.match(r"[a-z]+:|#|/", target):
            return None
        return os.path.normpath(PurePosixPath(original).parent / target)

    def _image(self, found: re.Match, page: str, original: str) -> str:
        """Return a picture with its path from the page's place in the site."""
        path = self._target(found[2], original)
        if path is None:
            return found[1]
        return f"![{found[1]}]({relative(self.copied(path, picture=True), page)})"

    def _pictures(self, found: re.Match, page: str, original: str) -> str:
        """Return a picture in HTML, which Sphinx does not follow, as the site shows it."""
        path = self._target(found[1], original)
        return found[0] if path is None else self.picture(path, html.unescape(found[2]), page)

    def picture(self, path: str, says: str, page: str) -> str:
        """Return the HTML of a picture, as wide as it was drawn.

        A phone gets the narrow one and a dark page the dark one, where there are such. The reader chooses
        the theme on the page, so both stand there, and the theme hides one.
        """
        file = Path(path)
        if not (self.root / file.with_stem(file.stem + DARK)).exists():
            return self._drawn(file, "", "", says, page)

        light = self._drawn(file, "", ' class="only-light"', says, page)
        return light + self._drawn(file, DARK, ' class="only-dark"', says, page)

    def _drawn(self, file: Path, theme: str, attribute: str, says: str, page: str) -> str:
        """Return the HTML of a picture for a theme, which its file's name ends with; see `picture`."""
        wide = file.with_stem(f"{file.stem}{theme}")
        narrow = file.with_stem(f"{file.stem}{NARROW}{theme}")
        with Image.open(self.root / wide) as image:
            width = round(image.width * SHOWN_PER_INCH / DOTS_PER_INCH)

        source = ""
        if (self.root / narrow).exists():
            address = relative(self.copied(narrow.as_posix()), page)
            source = f'<source media="(max-width: 600px)" srcset="{address}">'

        address = relative(self.copied(wide.as_posix()), page)
        shown = f'<img src="{address}" alt="{html.escape(says)}" style="width: {width}px" loading="lazy">'
        return f"<picture{attribute}>{source}{shown}</picture>"

    def _link(self, found: re.Match, page: str, original: str) -> str:
        """Return a link as the site needs it."""
        text = found[1]
        place = self._place(found, original)
        if place is None:
            return found[0]
        path, anchor = place
        if path in self.pages:
            return f"[{text}]({relative(path, page)}{anchor})"
        return f'<a href="{html.escape(relative(path, page))}">{text}</a>'

    def in_output(self, text: str, page: str) -> str:
        """Return Markdown that a cell of the notebook `page` printed; Sphinx leaves its links as they are."""

        def address(found: re.Match) -> str:
            place = self._place(found, page)
            if place is None:
                return found[0]
            path, anchor = place
            if path in self.pages:
                path = PurePosixPath(path).with_suffix(".html").as_posix()
            return f"[{found[1]}]({relative(path, page)}{anchor})"

        return LINK.sub(address, text)

    def _place(self, found: re.Match, original: str) -> tuple[str, str] | None:
        """Return where a relative link leads in the site, and its anchor with a hash; None for all others."""
        target, hash_, anchor = found[2].partition("#")
        path = self._target(target, original) if target else None
        if path is None:
            return None
        if path == "README.md" and anchor in self.sections:
            return self.sections[anchor], f"#{anchor}"
        path = PLACES.get(path, FOLDERS.get(path, path))
        module = MODULE.fullmatch(path)
        if module and f"{page_of(module[1])}.md" in self.pages:
            return f"{page_of(module[1])}.md", f"#{module[2]}"
        if path in self.pages:
            return path, f"{hash_}{anchor}"
        if path in self.cells:
            return self.cells[path], ""
        if not (self.root / path).is_file():
            raise LostLinkError(
                f"{original}: {found[0]} leads to {path}, which is no page and no file of the project"
            )
        return self.copied(path), ""

    def copied(self, path: str, picture: bool = False) -> str:
        """Copy a file of the project to the site, among the pages where it is a picture; return its path."""
        target = (self.pictures if picture else self.files) / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / path, target)
        return path


def relative(path: str, page: str) -> str:
    """Return how `page` names `path`, both relative to one folder."""
    return os.path.relpath(path, PurePosixPath(page).parent)
