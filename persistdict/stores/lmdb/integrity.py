"""The integrity pass, the repair and the quarantine, as the store contract has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from persistdict.reports import Quarantined, Report
from persistdict.stores.lmdb import quarantine
from persistdict.stores.lmdb.durable import Durable
from persistdict.stores.lmdb.offline import check_pages
from persistdict.stores.lmdb.repair import repair as mended
from persistdict.stores.lmdb.verify import STEP, verify_step
from persistdict.stores.lmdb.verify import verify as examined

__all__ = ["Integrity"]


class Integrity(Durable):
    """Looks for damage and mends it. The store derives from it."""

    def check(self, budget: int, after: bytes = b"") -> tuple[list[str], bytes | None]:
        faults: list[str] = []
        position: bytes | None = after
        while position is not None and budget > 0:
            step = verify_step(self, min(budget, STEP), position)
            faults += [found.fault.sentence for found in step.found]
            budget -= step.checked + 1
            position = step.position
        return faults, position

    def verify(
        self,
        *,
        repair: bool = False,
        pages: bool = False,
        resume: bytes = b"",
        progress: Callable[[int, int], object] | None = None,
    ) -> Report:
        if repair and resume:
            raise ValueError("a repair begins anew: give either repair or resume")
        report = mended(self, progress) if repair else examined(self, progress, resume)
        if not pages or report.position is not None:
            return report
        found = tuple(check_pages(self.place))
        harmful = tuple(fault for fault in found if fault.kind != "leak")
        return report._replace(faults=report.faults + found, left=report.left + harmful)

    def quarantined(self) -> Iterator[Quarantined]:
        return quarantine.quarantined(self)

    @property
    def damage(self) -> str:
        return self.env.damage
