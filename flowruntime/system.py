"""The machine as this process may use it: processors, memory, versions, threads.

Owns: reading them from the kernel's files, cgroups of both versions included, and from package metadata.
Does not own: what follows from them (health, bounds).

Always holds: what cannot be told is None, never a guess; a limit of a cgroup above this process's own counts,
too; nothing is cached.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, Final

import msgspec

from flowruntime.installed import DISTRIBUTION, version

_UNLIMITED: Final = 1 << 60
"""cgroups of version 1 write a huge number where there is no limit."""


class Processors(msgspec.Struct, frozen=True, kw_only=True):
    """How many cores this process may use."""

    online: int | None
    """Of the machine."""
    affinity: int | None
    """This process may be scheduled on."""
    quota: float | None
    """Its cgroups allow, as cores; None: no quota."""

    @property
    def usable(self) -> float:
        """The smallest of them; 1.0 where nothing can be told."""
        known = [count for count in (self.online, self.affinity, self.quota) if count is not None]
        return float(min(known, default=1.0))


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """How much memory this process may use, in bytes; None: it cannot be told."""

    limit_bytes: int | None
    """The machine's, or a smaller limit of its cgroups."""
    available_bytes: int | None
    """Of the limit: not in use, or given up by the kernel when asked for."""
    resident_bytes: int | None
    """Of this process."""
    is_limited: bool
    """A cgroup allows less than the machine has."""


class SystemInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What FlowRx runs on."""

    flowrx: str
    python: str
    implementation: str
    platform: str
    pid: int
    processors: Processors
    memory: Memory
    threads: int
    """Python threads alive."""
    native_threads: int | None
    """Threads of the process, those of libraries included."""
    process_uptime_s: float | None
    packages: Mapping[str, str]
    """Versions of what FlowRx depends on and is installed, extras included."""
    initialized: bool
    """`flowruntime.init` has started the runtime of this process."""
    loop: str | None
    """Class of its event loop; None: it is not started."""
    uptime_s: float | None
    """Since it was started."""
    options: Mapping[str, Any]
    """It was configured with; secrets left out."""
    statistics: Mapping[str, Any] | None
    """Of its `FlowRuntime`."""


def describe(
    *,
    loop: str | None,
    uptime_s: float | None,
    options: Mapping[str, Any],
    statistics: Mapping[str, Any] | None,
) -> SystemInfo:
    """Everything, read now; the arguments say of the runtime of this process what only it knows."""
    return SystemInfo(
        flowrx=version(),
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        pid=os.getpid(),
        processors=processors(),
        memory=memory(),
        threads=threading.active_count(),
        native_threads=native_threads(),
        process_uptime_s=process_uptime_s(),
        packages=packages(),
        initialized=loop is not None,
        loop=loop,
        uptime_s=uptime_s,
        options=options,
        statistics=statistics,
    )


def packages() -> dict[str, str]:
    """Versions of the distribution's requirements that are installed."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, str] = {}
    for text in required:
        name = text.partition(";")[0]
        for sign in "<>=!~[ (":
            name = name.partition(sign)[0]
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


# --- processors ---------------------------------------------------------------------------------------


def processors(root: str = "/") -> Processors:
    """Cores by machine, affinity and cgroup quota. `root` is where /proc and /sys are looked for."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return Processors(online=os.cpu_count(), affinity=affinity, quota=min(quotas, default=None))


def _quotas_v2(root: str) -> Iterator[float]:
    for folder in _cgroups(root, ""):
        quota, _, period = _text(f"{folder}/cpu.max").partition(" ")
        if quota.isdecimal() and period.strip().isdecimal() and int(period):
            yield int(quota) / int(period)


def _quotas_v1(root: str) -> Iterator[float]:
    for folder in _cgroups(root, "cpu"):
        quota, period = _text(f"{folder}/cpu.cfs_quota_us"), _text(f"{folder}/cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)


# --- memory -------------------------------------------------------------------------------------------


def memory(root: str = "/") -> Memory:
    """Memory by machine and cgroups. `root` is where /proc and /sys are looked for."""
    facts = _meminfo(root)
    limit, available = facts.get("MemTotal"), facts.get("MemAvailable")
    is_limited = False
    for most, used in (*_memory_v2(root), *_memory_v1(root)):
        if limit is None or most < limit:
            limit, is_limited = most, True
        left = max(0, most - used)
        available = left if available is None else min(available, left)
    return Memory(
        limit_bytes=limit, available_bytes=available, resident_bytes=_resident(root), is_limited=is_limited
    )


def _memory_v2(root: str) -> Iterator[tuple[int, int]]:
    """Limit and use of each cgroup that has a limit; what the kernel can take back is not in use."""
    for folder in _cgroups(root, ""):
        most, used = _text(f"{folder}/memory.max"), _text(f"{folder}/memory.current")
        if most.isdecimal() and used.isdecimal():
            yield int(most), int(used) - _stat(f"{folder}/memory.stat", "inactive_file")


def _memory_v1(root: str) -> Iterator[tuple[int, int]]:
    for folder in _cgroups(root, "memory"):
        most, used = _text(f"{folder}/memory.limit_in_bytes"), _text(f"{folder}/memory.usage_in_bytes")
        if most.isdecimal() and used.isdecimal() and int(most) < _UNLIMITED:
            yield int(most), int(used) - _stat(f"{folder}/memory.stat", "total_inactive_file")


def _meminfo(root: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in _text(f"{root}/proc/meminfo").splitlines():
        name, _, amount = line.partition(":")
        number, _, unit = amount.strip().partition(" ")
        if number.isdecimal():
            found[name] = int(number) * (1024 if unit == "kB" else 1)
    return found


def _resident(root: str) -> int | None:
    pages = _text(f"{root}/proc/self/statm").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 and pages[1].isdecimal() else None


def _stat(path: str, name: str) -> int:
    for line in _text(path).splitlines():
        key, _, amount = line.partition(" ")
        if key == name and amount.isdecimal():
            return int(amount)
    return 0


# --- the process --------------------------------------------------------------------------------------


def native_threads(root: str = "/") -> int | None:
    """Threads of the process, those of libraries included."""
    for line in _text(f"{root}/proc/self/status").splitlines():
        if line.startswith("Threads:"):
            return int(line.partition(":")[2])
    return None


def process_uptime_s(root: str = "/") -> float | None:
    """Seconds since the process was started."""
    stat, uptime = _text(f"{root}/proc/self/stat"), _text(f"{root}/proc/uptime")
    fields = stat.rpartition(")")[2].split()  # behind the name, which may hold anything
    if len(fields) < 20 or not uptime:  # noqa: PLR2004 - field 22 of proc(5) is the 20th behind the name
        return None
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, float(uptime.split()[0]) - started_s)


# --- files of the kernel ------------------------------------------------------------------------------


def _cgroups(root: str, controller: str) -> Iterator[str]:
    """The folders of this process's cgroup and those above it, innermost first.

    Args:
        root: where /proc and /sys are looked for.
        controller: of version 1; empty for the unified hierarchy of version 2.
    """
    path = _cgroup_path(root, controller)
    if path is None:
        return
    for mount in _mounts(root, controller):
        # A container may see its own group at the root of the mount, under whatever path the host has it.
        here = path if os.path.isdir(f"{mount}{path}") else "/"  # noqa: PTH112 - pathlib is not loaded for it
        while True:
            yield f"{mount}{here}".rstrip("/")
            if here in ("/", ""):
                return
            here = here.rpartition("/")[0] or "/"


def _cgroup_path(root: str, controller: str) -> str | None:
    for line in _text(f"{root}/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return path
    return None


def _mounts(root: str, controller: str) -> Iterator[str]:
    base = f"{root.rstrip('/')}/sys/fs/cgroup"
    names = (controller, f"{controller},cpuacct") if controller else ("", "unified")
    for name in names:
        folder = f"{base}/{name}".rstrip("/")
        if os.path.isdir(folder):  # noqa: PTH112 - as above
            yield folder


def _text(path: str) -> str:
    """The text of a file of the kernel; empty when there is none or it may not be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - as above
            return file.read().strip()
    except OSError:
        return ""
