"""What hostile cases share: servers for commands, and one tally, printed at the end.

`make hostile` is `pytest tests/hostile --record` in two processes: it writes the tally into docs/promises.md,
too; rows of groups that are not run stay (`-k kills`). All takes less than half an hour; other tests have
short cases.
"""

import pytest
from hostile.cases import Bench
from hostile.groups import EVERY, FAMILIES
from hostile.page import write
from hostile.tally import Tally

SERVERS = 2
PASSED = pytest.StashKey[bool]()  # of a test
COUNTED = "counted"  # the property of a test's reports that holds its tally


def pytest_addoption(parser):
    parser.addoption("--record", action="store_true", help="write the table into docs/promises.md")


def pytest_configure(config):
    is_worker = hasattr(config, "workerinput")  # of xdist, whose reports go to the process that began it
    if not is_worker:
        config.pluginmanager.register(Counts(config.getoption("--record")))


class Counts:
    """The counts of all tests that have ended, in whatever process each of them ran."""

    def __init__(self, is_recorded: bool):
        self.is_recorded = is_recorded
        self.tally = Tally()

    def pytest_runtest_logreport(self, report):
        """Add the counts of a test that has ended, and write them into the page, which an interrupt keeps."""
        if report.when != "teardown":
            return
        for name, values in report.user_properties:
            if name == COUNTED:
                self.tally.join(Tally.of_values(values))
                if self.is_recorded:
                    write(self.tally, EVERY, FAMILIES)

    def pytest_terminal_summary(self, terminalreporter):
        """Print the table."""
        if self.tally.counts:
            terminalreporter.write_line(f"\n{self.tally.table()}")


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
    """The counts of one test; they join those of all, and of the page, when it ends.

    Those of a test that was stopped, or went wrong otherwise, do not count.
    """
    own = Tally()
    yield own
    if request.node.stash.get(PASSED, False) or own.broken:
        request.node.user_properties.append((COUNTED, own.values()))
