"""What hostile cases share: servers for commands, and one tally, printed at the end.

`make hostile` is `pytest tests/hostile --record`: it writes the tally into docs/promises.md, too; rows of
groups that are not run stay (`-k kills`). All takes less than half an hour; other tests have short cases.
"""

import pytest
from hostile.cases import Bench
from hostile.groups import EVERY, FAMILIES
from hostile.page import write
from hostile.tally import Tally

SERVERS = 2
PASSED = pytest.StashKey[bool]()  # of a test
counted = Tally()


def pytest_addoption(parser):
    parser.addoption("--record", action="store_true", help="write the table into docs/promises.md")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    made = yield
    if call.when == "call":
        item.stash[PASSED] = made.passed
    return made


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """Tiny models with their texts, and servers that run commands."""
    made = Bench(tmp_path_factory.mktemp("hostile"), SERVERS)
    yield made
    made.close()


@pytest.fixture
def tally(request):
    """The counts of one test; they join those of the session, and of the page, when it ends."""
    own = Tally()
    yield own
    if not (request.node.stash.get(PASSED, False) or own.broken):
        return  # it was stopped, or went wrong otherwise
    counted.join(own)
    if request.config.getoption("--record"):
        write(counted, EVERY, FAMILIES)


def pytest_terminal_summary(terminalreporter):
    if counted.counts:
        terminalreporter.write_line(f"\n{counted.table()}")
