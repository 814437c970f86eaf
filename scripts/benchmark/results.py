"""What a run has found, as JSON and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.timing import Cell, Samples

__all__ = ["Results"]


@dataclass
class Results:
    """Everything that tables and charts are made of.

    Args:
        about: what the numbers depend on.
        samples: the measurements.
        reasons: value and size -> library -> operation, or "" for all -> why there is no number.
        fidelity: library -> what was put -> what came back.
        sizes: what SafeCodec and pickle make of values, in bytes.
        sealed: what seals make of them.
        profile: operation -> library -> what was counted for one.
    """

    about: dict[str, str] = field(default_factory=dict)
    samples: Samples = field(default_factory=Samples)
    reasons: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    fidelity: dict[str, dict[str, str]] = field(default_factory=dict)
    sizes: dict[str, list[int]] = field(default_factory=dict)
    sealed: dict[str, int] = field(default_factory=dict)
    profile: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def note(self, cell: Cell, reason: str) -> None:
        """Say why a cell has no number; one without an operation stands for all of its library."""
        where = self.reasons.setdefault(f"{cell.size} of {cell.value}", {})
        where.setdefault(cell.library, {})[cell.operation] = reason

    def reason(self, cell: Cell) -> str:
        reasons = self.reasons.get(f"{cell.size} of {cell.value}", {}).get(cell.library, {})
        return reasons.get("") or reasons.get(cell.operation) or ""

    def save(self, path: Path) -> None:
        parts = {**self.__dict__, "samples": self.samples.as_json()}
        path.write_text(json.dumps(parts, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        parts: dict[str, Any] = json.loads(path.read_text())
        return cls(**{**parts, "samples": Samples.from_json(parts["samples"])})
