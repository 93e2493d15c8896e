"""Installs what tests need besides Python, from Debian and npm: `python -m tests.servers.install`.

Owns: deciding whether anything is to be done, and doing it once. `make test` runs it, so that a machine with
only Python, make and the registries proves everything.
Does not own: starting servers (tests.servers.postgres, tests.servers.mock_models).

Always holds: what is there is not touched; where nothing can be installed it says what will not be proven.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.servers import mock_models
from tests.servers.postgres import WHAT_IS_MISSING, find_binaries

_APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "-q", "-y")
_COMMON = Path("/etc/postgresql-common/createcluster.conf")


def main() -> int:
    """Exit code 1 where it is needed and cannot be had: in CI."""
    missing = [fault for fault in (_postgres(), _mock_models()) if fault]
    for fault in missing:
        print(fault, file=sys.stderr)
    return 1 if missing and os.environ.get("CI") == "true" else 0


def _mock_models() -> str:
    """What is not proven without it; nothing when it is here."""
    was_here = mock_models.is_installed()
    try:
        mock_models.install()
    except mock_models.NoMockModelsError as fault:
        return str(fault)
    print(f"@copilotkit/aimock {'is here' if was_here else 'was installed'}: {mock_models.FOLDER}")
    return ""


def _postgres() -> str:
    """What is not proven without it; nothing when it is here."""
    binaries = find_binaries()
    if binaries is not None:
        print(f"PostgreSQL is here: {binaries}")
        return ""
    fault = _cannot() or _install()
    binaries = find_binaries()
    if binaries is not None:
        print(f"PostgreSQL was installed: {binaries}")
        return ""
    return f"{WHAT_IS_MISSING} ({fault or 'the packages hold none'})"


def _cannot() -> str:
    if shutil.which("apt-get") is None:
        return "apt-get is not here"
    return "" if os.geteuid() == 0 else "not root"


def _install() -> str:
    """What went wrong; nothing when it did not."""
    print("== PostgreSQL is not here: installing Debian's package", flush=True)
    for command in (("update",), ("install", "--no-install-recommends", "postgresql-common")):
        if _apt(*command):
            return f"apt-get {command[0]} failed"
    if "\ncreate_main_cluster = false" not in _COMMON.read_text(encoding="utf-8"):
        with _COMMON.open("a", encoding="utf-8") as settings:  # tests start their own; no service is wanted
            settings.write("\ncreate_main_cluster = false\n")
    return "apt-get install failed" if _apt("install", "--no-install-recommends", "postgresql") else ""


def _apt(*command: str) -> int:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(
        [*_APT, *command], env=environment, stdout=subprocess.DEVNULL, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
