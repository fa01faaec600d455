"""How much memory this process has used at most, and how much more there is."""

import os
import resource
import sys
from pathlib import Path


def peak_resident_mb() -> float:
    """Peak resident MB of this process. On Linux not ru_maxrss: a process starts it at the peak of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def resident_mb() -> float:
    """Resident MB of this process now; its peak where the system tells no more."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="ascii").split("VmRSS:")[1].split()[0]) / 2**10
    return peak_resident_mb()


def available_mb() -> float:
    """MB that this machine, or the container around this process, could still give; all of it where that is unknown."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    free = int(info.read_text(encoding="ascii").split("MemAvailable:")[1].split()[0]) / 2**10
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))  # version 2
    if limit.exists() and limit.read_text(encoding="ascii").strip() != "max":
        free = min(free, (int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii"))) / 2**20)
    return free
