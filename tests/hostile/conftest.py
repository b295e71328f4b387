"""What hostile cases share: servers for commands, and one tally, printed at the end.

`pytest tests/hostile --record` writes it into docs/promises.md, too. This takes half an hour on two cores;
short versions are among the other tests.
"""

import pytest
from hostile import report
from hostile.cases import Bench
from hostile.tally import Tally

COUNTED = Tally()


def pytest_addoption(parser):
    parser.addoption("--record", action="store_true", help="write the table into docs/promises.md")


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """A tiny model with its text, and two servers that run commands."""
    made = Bench(tmp_path_factory.mktemp("hostile"), 2)
    yield made
    made.close()


@pytest.fixture(scope="session")
def tally():
    """The counts of this session."""
    return COUNTED


def pytest_terminal_summary(terminalreporter, config):
    if COUNTED.counts:
        terminalreporter.write_line(f"\n{COUNTED.table()}")
        if config.getoption("--record"):
            report.write(COUNTED)
