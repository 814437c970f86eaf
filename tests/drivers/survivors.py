"""What numbered writers have left after a power cut, judged.

For each writer the store must hold what it had after exactly n transactions, for one n. Which n is enough depends on
the durability: "commit", all that returned; "interval", all that returned longer ago than the window, or before a
flush. And across the writers it is one moment: where one transaction returned before another began, the first is not
lost while the second survives.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from drivers.numbered import OWN, SHARED, Noted, Plan, Written, own_key, recognised

Journals = list[dict[int, Noted]]


class Findings(NamedTuple):
    """What was found: for each writer the number of its last surviving transaction, and the rest for the counts."""

    numbers: list[int]
    shared: list[int]  # writer and number of what the shared keys hold; empty for nothing
    lost: int  # acknowledged transactions that are gone, as they may in an interval
    oldest: float  # seconds before the cut, of the oldest of them
    under_way: int  # transactions that did not return and are there
    entries: int


def judge(
    items: list[tuple[Any, Any]],
    plans: list[Plan],
    shared: list[int],
    journals: Journals,
    cut: int,
    window: float | None,
) -> Findings:
    """Compare the content of a store with what its writers noted.

    Args:
        items: everything that is in the store, in its order.
        plans: what was in it when the writers began.
        shared: what the shared keys held then.
        journals: what has returned since, by writer and number.
        cut: the moment of the cut.
        window: seconds that may be lost; None for nothing.

    Raises AssertionError if anything is lost, undead, damaged or from another moment than the rest.
    """
    fits, batch = _sorted_out(items, plans, journals)
    floors = [floor_of(plan, journals, cut, window) for plan in plans]
    for plan, fit, floor in zip(plans, fits, floors, strict=True):
        assert fit[-1] >= floor, (
            f"writer {plan.writer} has lost what must have been on the disk: it had returned from {floor}, and what is "
            f"there is the state after {fit[-1]}"
        )
    _check_moment(fits, plans, journals)
    now_shared = _judge_shared(batch, fits, plans, shared, journals)
    gone = [
        noted
        for fit, journal in zip(fits, journals, strict=True)
        for number, noted in journal.items()
        if number > fit[-1]
    ]
    oldest = max(((cut - noted.returned) / 1e9 for noted in gone), default=0.0)
    under_way = sum(
        fit[0] > max(journal, default=plan.number) for fit, journal, plan in zip(fits, journals, plans, strict=True)
    )
    return Findings([fit[-1] for fit in fits], now_shared, len(gone), oldest, under_way, len(items))


def _sorted_out(
    items: list[tuple[Any, Any]], plans: list[Plan], journals: Journals
) -> tuple[list[list[int]], dict[str, Written]]:
    """For each writer the numbers that fit, and what the shared keys hold."""
    found = {key: recognised(value) for key, value in items}
    assert len(found) == len(items), "a key was iterated twice"
    left = dict(found)
    fits = []
    for plan, journal in zip(plans, journals, strict=True):
        own = {own_key(plan.writer, number) for number in range(OWN)}
        mine = {key: left.pop(key) for key in found if key in own}
        fits.append(numbers_that_fit(plan, mine, max(journal, default=plan.number) + 1))
    batch = {key: left.pop(key) for key in SHARED if key in left}
    assert not left, f"entries that nobody wrote: {list(left)[:5]}"
    return fits, batch


def numbers_that_fit(plan: Plan, mine: dict[Any, Written], most: int) -> list[int]:
    """After how many transactions, at most `most`, a writer had exactly this. Nearly always one number."""
    plan = plan.copy()
    wrong = {key for key in plan.entries.keys() | mine.keys() if plan.entries.get(key) != mine.get(key)}
    fit = []
    nearest = (len(wrong), plan.number, sorted(map(repr, wrong))[:3])
    while True:
        if not wrong and list(plan.entries) == list(mine):  # the order counts
            fit.append(plan.number)
        if plan.number >= most:
            break
        transaction = plan.next()
        plan.done(transaction)
        for key in [*transaction.removed, *(key for key in transaction.sets if key not in SHARED)]:
            if plan.entries.get(key) == mine.get(key):
                wrong.discard(key)
            else:
                wrong.add(key)
        nearest = min(nearest, (len(wrong), plan.number, sorted(map(repr, wrong))[:3]))
    assert fit, (
        f"writer {plan.writer} never had what is there, up to its transaction {most}; the nearest is that after "
        f"{nearest[1]}, where {nearest[0] or 'only the order of'} entries differ: {str(nearest[2])[:200]}"
    )
    return fit


def floor_of(plan: Plan, journals: Journals, cut: int, window: float | None) -> int:
    """Up to which transaction everything of a writer must be there."""
    own = journals[plan.writer]
    if window is None:
        return max(own, default=plan.number)
    flushed = max((noted.begun for journal in journals for noted in journal.values() if noted.synced), default=0)
    safe = max(cut - int(window * 1e9), flushed)
    return max((number for number, noted in own.items() if noted.returned < safe), default=plan.number)


def _check_moment(fits: list[list[int]], plans: list[Plan], journals: Journals) -> None:
    """No transaction is lost that had returned before another one began that is there."""
    for plan, fit, journal in zip(plans, fits, journals, strict=True):
        lost = journal.get(fit[-1] + 1)
        if lost is None:
            continue
        for other, survived in zip(plans, fits, strict=True):
            begun = _begun(journals[other.writer], survived[0])
            assert begun < lost.returned, (
                f"transaction {fit[-1] + 1} of writer {plan.writer} is lost, and transaction {survived[0]} of writer "
                f"{other.writer} is there, which began {(begun - lost.returned) / 1e6:.1f} ms after it had returned"
            )


def _begun(journal: dict[int, Noted], number: int) -> int:
    """When a transaction began, or if it never returned: not before when."""
    if number in journal:
        return journal[number].begun
    return journal[number - 1].returned if number - 1 in journal else 0


def _judge_shared(
    batch: dict[str, Written], fits: list[list[int]], plans: list[Plan], shared: list[int], journals: Journals
) -> list[int]:
    """The shared keys hold what one of the surviving transactions wrote, and none that was surely replaced later."""
    names = {(written.writer, written.number) for written in batch.values()}
    assert len(names) <= 1 and len(batch) in (0, len(SHARED)), f"the shared keys are torn: {batch}"
    last = {(plan.writer, number) for plan, fit in zip(plans, fits, strict=True) for number in _shared_by(plan, fit)}
    if not names:
        assert not shared and not last, f"the shared keys are gone; {last or shared} wrote them"
        return []
    [(writer, number)] = names
    if not last:
        assert [writer, number] == shared, f"the shared keys are from {writer, number}, and were from {shared}"
        return shared
    assert (writer, number) in last, f"the shared keys are from {writer, number}; the last to write them were {last}"
    noted = journals[writer].get(number)
    for other, later in last:
        begun = _begun(journals[other], later)
        assert noted is None or begun < noted.returned, (
            f"the shared keys are from transaction {number} of writer {writer}, and {later} of {other} replaced it"
        )
    return [writer, number]


def _shared_by(plan: Plan, fit: list[int]) -> set[int]:
    """The last transactions before each of these numbers that wrote the shared keys, since the plan began."""
    plan, before, last = plan.copy(), plan.shared, set()
    while plan.number < fit[-1]:
        plan.done(plan.next())
        if plan.number in fit and plan.shared != before:
            last.add(plan.shared)
    return last
