"""Making a value once, for tasks: the same steps as in making.py, and the event loop waits for none of them.

What reads the store goes on the loop, for that is as quick as a look into memory; what writes it, and with it every
wait for locks and disks, goes into a thread that is started for that. It is no thread of the loop's executor: there
functions may be waiting for just this value. Factories that are no coroutines do go there.

A task may be cancelled anywhere. What runs in a thread then goes on; the end of a flight always does.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from persistdict.binding import is_async
from persistdict.flights import aboard
from persistdict.making import Making, Outcome, pauses

__all__ = ["run", "run_unless_busy"]

T = TypeVar("T")


async def run(making: Making, factory: Callable[[], Any]) -> Any:
    """As `Making.run`."""
    while not making.board():
        await _landing(making)
        if making.flight.outcome is not None and not making.anew:
            return making.flight.outcome()
    return await _fly(making, factory, _obtain)


async def run_unless_busy(making: Making, factory: Callable[[], Any], old: Any) -> Any:
    """As `Making.run_unless_busy`."""
    if not making.board_unless_busy():
        return old
    try:
        return await _fly(making, factory, _obtain_at_once)
    except _Busy:
        return old
    except Exception as error:
        making.warn(error)
        return old


class _Busy(Exception):
    """Another process has the lease."""


async def _fly(making: Making, factory: Callable[[], Any], obtain: Callable[[Making], Any]) -> Any:
    outcome = None
    try:
        outcome = await obtain(making)
        if outcome is None:
            value = await _compute(making, factory)
    except Exception:
        await _apart(making.finish)
        raise
    except BaseException:  # cancelled: then nothing may be waited for
        _start(making.finish)
        raise
    if outcome is None:
        return await _apart(lambda: making.settle(value))
    await _apart(lambda: making.finish(outcome))
    return outcome()


async def _compute(making: Making, factory: Callable[[], Any]) -> Any:
    token = aboard.set((*aboard.get(), making.flight))
    try:
        making.begin()
        value = factory() if is_async(factory) else await asyncio.to_thread(_called, factory)
        return await value if inspect.isawaitable(value) else value
    finally:
        aboard.reset(token)


def _called(factory: Callable[[], Any]) -> Any:
    """What a factory returns. A StopIteration, which no future can carry, becomes a RuntimeError."""
    try:
        return factory()
    except StopIteration as error:
        raise RuntimeError("a StopIteration came out of a factory") from error


async def _obtain(making: Making) -> Outcome | None:
    growing = pauses()
    mark = making.store.begin().id()
    while not await _apart(making.attempt):
        for pause in growing:
            remaining = making.remaining()
            await asyncio.sleep(pause if remaining is None else min(pause, remaining))
            if making.has_changed(mark):
                break
        mark = making.store.begin().id()
        if (found := making.look()) is not None:
            return found
    return making.look()


async def _obtain_at_once(making: Making) -> Outcome | None:
    if not await _apart(making.attempt):
        raise _Busy
    return making.look()


async def _landing(making: Making) -> None:
    """Wait for the flight of another call. Raises StillComputingError."""
    loop = asyncio.get_running_loop()
    landed = loop.create_future()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(lambda: None if landed.done() else landed.set_result(None))

    making.flight.on_landing(tell)
    await asyncio.wait([landed], timeout=making.remaining())
    if not landed.done():
        making.remaining()


async def _apart(call: Callable[[], T]) -> T:
    """What `call` returns, called in a thread. If the task is cancelled, the thread goes on."""
    told = _Told(asyncio.get_running_loop(), call)
    _start(told.work)
    return await told.future  # type: ignore[no-any-return]


class _Told:
    """A call in a thread, of which a loop is told."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Any) -> None:
        self.future: Any = loop.create_future()
        self._loop, self._call = loop, call

    def work(self) -> None:
        """Call it."""
        result: Any = None
        failed: BaseException | None = None
        try:
            result = self._call()
        except StopIteration as error:  # which no future can carry
            failed = RuntimeError("a StopIteration came out of a factory or cache_if")
            failed.__cause__ = error
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            self._loop.call_soon_threadsafe(self._tell, result, failed)
        del failed  # its traceback leads back to here

    def _tell(self, result: Any, failed: BaseException | None) -> None:
        if self.future.done():
            return
        if failed is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(failed)


def _start(call: Any) -> None:
    """Call it in a thread of its own, or here where the system gives no thread.

    By one call of C: Ctrl-C within that of `threading` would leave locks of its own held.
    """
    try:
        _thread.start_new_thread(call, ())
    except RuntimeError:
        call()
