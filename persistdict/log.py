"""Messages: through loguru where it is installed, else through the standard library's logging ("persistdict").

Warnings and errors are always given; what is merely informative only by a dictionary that is `verbose`. Messages
name keys by a digest and never show values. loguru is imported with the first message.
"""

from __future__ import annotations

__all__ = ["Log"]


def _say(level: str, text: str) -> None:
    try:
        from loguru import logger
    except ImportError:
        import logging

        getattr(logging.getLogger("persistdict"), level)("%s", text)
    else:
        getattr(logger.opt(depth=2), level)("{}", text)


class Log:
    """The messages of one dictionary, each beginning with its name. Threads: any number."""

    def __init__(self, name: str, verbose: bool) -> None:
        self.name = name
        self.verbose = verbose

    def info(self, message: str) -> None:
        """Say what was done, if the dictionary is verbose."""
        if self.verbose:
            _say("info", f"[{self.name}] {message}")

    def warning(self, message: str) -> None:
        """Say what the user should know."""
        _say("warning", f"[{self.name}] {message}")

    def error(self, message: str) -> None:
        """Say what went wrong."""
        _say("error", f"[{self.name}] {message}")
