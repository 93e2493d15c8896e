"""What this process may use of its machine, read from the kernel's files; made-up machines below a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowruntime import system

MIB = 1 << 20
MEMINFO = "MemTotal:       16777216 kB\nMemFree:  100 kB\nMemAvailable:    8388608 kB\nHugePages_Total:   0\n"


def machine(root: Path, files: dict[str, str]) -> str:
    """A folder with some of the kernel's files."""
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_without_a_cgroup_the_machine_is_the_limit(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cgroup.procs": ""})
    found = system.memory(root)
    assert (found.limit_bytes, found.available_bytes) == (16_384 * MIB, 8_192 * MIB)
    assert not found.is_limited
    assert system.processors(root).quota is None


def test_a_container_of_version_2_sees_its_own_limits(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": f"{512 * MIB}\n",
            "sys/fs/cgroup/memory.current": f"{300 * MIB}\n",
            "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {100 * MIB}\n",
        },
    )
    found = system.memory(root)
    assert (found.limit_bytes, found.available_bytes) == (512 * MIB, 312 * MIB)
    assert found.is_limited
    assert system.processors(root).quota == 1.5


def test_a_limit_of_a_group_above_counts_too(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/system.slice/app.service"
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/app.service\n",
            f"{group}/memory.max": "max\n",
            f"{group}/memory.current": "5\n",
            f"{group}/cpu.max": "max 100000\n",
            "sys/fs/cgroup/system.slice/memory.max": f"{256 * MIB}\n",
            "sys/fs/cgroup/system.slice/memory.current": f"{250 * MIB}\n",
            "sys/fs/cgroup/system.slice/cpu.max": "200000 100000\n",
        },
    )
    found = system.memory(root)
    assert (found.limit_bytes, found.available_bytes) == (256 * MIB, 6 * MIB)
    assert system.processors(root).quota == 2.0


def test_a_container_of_version_1_sees_its_group_at_the_root_of_the_mount(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{128 * MIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{100 * MIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {4 * MIB}\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    found = system.memory(root)
    assert (found.limit_bytes, found.available_bytes) == (128 * MIB, 32 * MIB)
    processors = system.processors(root)
    assert processors.quota == 0.5
    assert processors.usable == 0.5


def test_version_1_without_limits_limits_nothing(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n1:cpu:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert not system.memory(root).is_limited
    assert system.processors(root).quota is None


@pytest.mark.parametrize("text", ["", "rubbish", "0::/../../..\n", "MemTotal: x kB"])
def test_what_cannot_be_told_is_none_and_never_raises(tmp_path: Path, text: str) -> None:
    root = machine(tmp_path, {"proc/meminfo": text, "proc/self/cgroup": text, "proc/self/stat": text})
    found = system.memory(root)
    assert (found.limit_bytes, found.available_bytes, found.resident_bytes) == (None, None, None)
    assert system.processors(root).quota is None
    assert system.process_uptime_s(root) is None
    assert system.native_threads(root) is None


def test_cores_are_those_this_process_may_be_scheduled_on() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        found = system.processors()
        assert found.affinity == 1
        assert found.usable <= 1
    finally:
        os.sched_setaffinity(0, before)
    assert system.processors().affinity == len(before)


def test_the_uptime_is_told_whatever_the_process_is_called(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    fields = " ".join(["S", *["0"] * 18, str(90 * ticks), *["0"] * 20])
    files = {
        "proc/self/stat": f"7 (a ) name)) {fields}",
        "proc/uptime": "100.50 1.0",
        "proc/self/status": "Name: x\nThreads:\t12\n",
    }
    root = machine(tmp_path, files)
    assert system.process_uptime_s(root) == pytest.approx(10.5)
    assert system.native_threads(root) == 12


def test_this_process_is_told_of_truthfully() -> None:
    found = system.memory()
    assert found.limit_bytes is not None
    assert found.resident_bytes is not None
    assert found.available_bytes is not None
    assert 1 * MIB < found.resident_bytes < found.limit_bytes
    assert 0 < found.available_bytes <= found.limit_bytes
    uptime = system.process_uptime_s()
    assert uptime is not None
    assert 0 < uptime < 100_000
