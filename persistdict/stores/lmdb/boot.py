"""Which start of the machine this is: files that a power cut may have torn must not be read after the next one."""

from __future__ import annotations

import re
import sys

__all__ = ["boot_id"]


def boot_id() -> str | None:
    """A name that is the same for all processes until the machine starts anew; None where it cannot be told.

    Linux: the kernel's random boot id, the same in all containers. macOS: the boot session's id.
    """
    if sys.platform.startswith("linux"):
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            return None
    elif sys.platform == "darwin":
        text = _sysctl(b"kern.bootsessionuuid")
    else:
        return None
    return text.lower() if re.fullmatch(r"[0-9A-Fa-f-]{36}", text) else None


def _sysctl(name: bytes) -> str:
    import ctypes

    size = ctypes.c_size_t(64)
    buffer = ctypes.create_string_buffer(64)
    library = ctypes.CDLL(None)
    if library.sysctlbyname(name, buffer, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return ""
    return buffer.value.decode("ascii", "replace")
