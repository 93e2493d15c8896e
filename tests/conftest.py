"""What holds for every test: Hypothesis profiles, and that CI accepts no skipped test.

Owns: the profiles `dev` and `ci` (chosen by CI=true or HYPOTHESIS_PROFILE), and the rule on skips.
Does not own: fixtures; those live beside the tests that use them, or in flowruntime.testing.

Always holds: a property that fails prints the blob that reproduces it, and examples stay random, so that each
run looks somewhere new.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

_IN_CI = os.environ.get("CI") == "true"

settings.register_profile("dev", deadline=None, derandomize=False, print_blob=True, max_examples=50)
settings.register_profile(
    "ci",
    deadline=None,
    # The same examples every time: a change is judged by what it changes. `make fuzz` looks for new ones.
    derandomize=True,
    print_blob=True,
    max_examples=100,
    # a loaded machine is slow at generating data; that is no fault of the property
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if _IN_CI else "dev"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a CI session in which a test was skipped; there is no list of exceptions.

    Under xdist only the controller has a terminal reporter with all reports, so only it decides.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not _IN_CI or reporter is None or hasattr(session.config, "workerinput"):
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        names = ", ".join(sorted({str(report.nodeid) for report in skipped}))
        reporter.write_line(f"CI accepts no skipped test, {len(skipped)} skipped: {names}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
