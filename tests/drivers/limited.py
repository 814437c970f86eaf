"""A piece of code in a process with little memory and time: what a few bytes must not exceed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

__all__ = ["run_limited"]

_SETUP = """
import resource, sys
def limit(megabytes=256, seconds=20):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
"""


def run_limited(code: str) -> tuple[str, int, str]:
    """Run code, which calls `limit()` after its imports. Its last line, its status, and the end of its errors."""
    script = _SETUP + textwrap.dedent(code) + "\nprint('end')\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [""])[-1], done.returncode, done.stderr[-1000:]
