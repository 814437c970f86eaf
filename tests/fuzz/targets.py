"""All targets: those of the modules that are named here."""

from __future__ import annotations

from fuzz import decoders, planted, sealing
from fuzz.table import TARGETS, Target, outcome

__all__ = ["MODULES", "TARGETS", "Target", "outcome"]

MODULES = (decoders, planted, sealing)
