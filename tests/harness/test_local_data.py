"""BLiMP and WikiText-2 in a local folder: every published format is found and read, and what is broken is
told.
"""

import pytest
from public_formats import LINES, PAGES, RAW, parquet, put

from sinkprune_companion.harness.local_data import running_text, wikitext

# texts


FORMATS = {
    "raw": lambda root: put(root / "wiki.test.raw", RAW),
    "tokens": lambda root: put(root / "wikitext-2" / "wiki.test.tokens", RAW),
    "text": lambda root: put(root / "wikitext-2" / "test.txt", RAW),
    "lines": lambda root: parquet(root / "wikitext-2-raw-v1" / "test-00000-of-00001.parquet", text=LINES),
    "pages": lambda root: parquet(root / "WikiText2" / "test.parquet", page=PAGES),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_articles(name, tmp_path):
    FORMATS[name](tmp_path)
    found = wikitext(tmp_path, "test")
    assert [page.strip() for page in found] == [page.strip() for page in PAGES]
    assert found == wikitext(put(tmp_path / "other" / "wiki.test.raw", RAW).parent) or name == "pages"
    assert running_text(found) == "\n".join(line for line in RAW.split("\n") if line.strip())
