"""Signals that raise, in the middle of writes. Prints how many were raised, and "well" if nothing came of them."""

import signal
import sys
import threading
from collections import deque

from persistdict import PersistDict
from persistdict.tasks import check_all


class Interrupted(BaseException):
    """Raised by the signal handler, as KeyboardInterrupt is."""


def interrupt(*_):
    raise Interrupted


def main(path):
    """The last exceptions are kept alive, with the frames, locks and snapshots that they hold on to."""
    d = PersistDict(path, background_thread="disabled")
    kept: deque[BaseException] = deque(maxlen=200)
    operations = [
        lambda n: d.__setitem__("k", n),
        lambda n: d.update(k=n, other=[n]),
        lambda n: d.pop("k", None),
        lambda n: d.setdefault("k", n),
        lambda n: d.delete_many(["k", "x"]),
        lambda n: d.get("k"),
        lambda n: d.clear(),
    ]
    signal.signal(signal.SIGALRM, interrupt)
    number = 0
    while number < 5000:
        try:
            try:
                # Again and again: where Python must ignore an exception (a weakref's callback) the first is lost.
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + (number % 97) * 0.000003, 0.05)
                while True:
                    operations[number % len(operations)](number)
            except Interrupted as error:
                kept.append(error)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:  # while the timer was about to be stopped
            continue
        number += 1
        assert not d._store.env.recent.writing, "the environment was left writing"
        assert not d._front.writing, "the front was left writing"
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    done = []

    def write():
        d["k"] = "last"
        done.append(d["k"])

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(60)
    assert done == ["last"], "a lock was left held"
    assert PersistDict(path, background_thread="disabled")["k"] == d["k"] == "last"
    assert check_all(d._store) == []
    print(number, "signals, all is well")


if __name__ == "__main__":
    main(sys.argv[1])
