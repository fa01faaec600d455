"""How much memory this process has used at most."""

import resource
import sys
from pathlib import Path


def peak_resident_mb() -> float:
    """Peak resident MB of this process. On Linux not ru_maxrss: a process starts it at the peak of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
