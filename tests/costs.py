# SPDX-License-Identifier: Apache-2.0
"""What tests cost: `pytest --cpu N` tells CPU seconds, of their processes too.

CPU seconds, not time: they say the same on a busy machine.
"""

import resource
from collections import Counter

import pytest
from fakes.machine import cli

_BEFORE = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--cpu", type=int, metavar="N",
        help="tell CPU seconds: of all tests, the N dearest modules, the N dearest",
    )  # fmt: skip


def _cpu_s() -> float:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    usages = [resource.getrusage(processes) for processes in who]
    return cli.starter.cpu_s + sum(usage.ru_utime + usage.ru_stime for usage in usages)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Begin to count: fixtures are their first test's."""
    item.stash[_BEFORE] = _cpu_s()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Note the cost in the last report of a test, which workers pass on."""
    report = yield
    if call.when == "teardown":
        cost = _cpu_s() - item.stash[_BEFORE]
        report.user_properties.append(("cpu_s", cost))
    return report


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Tell what was noted."""
    count = config.getoption("cpu")
    if count is None:
        return
    tests, modules = Counter(), Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            cost = dict(getattr(report, "user_properties", ())).get("cpu_s")
            if cost is not None and report.when == "teardown":
                tests[report.nodeid] += cost
                modules[report.nodeid.partition("::")[0]] += cost
    terminalreporter.write_sep("=", f"{tests.total():.1f} CPU s")
    for costs in (modules, tests):
        for name, cost in costs.most_common(count):
            terminalreporter.write_line(f"{cost:8.2f} {name}")
