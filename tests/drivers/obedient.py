"""A process with a PersistDict that does what it is told: pickled commands on stdin, pickled outcomes on stdout."""

import pickle
import sys

from persistdict import PersistDict
from persistdict.testing import Clock


def main():
    """Commands: open PATH OPTIONS, close NOW, call NOW METHOD ARGS KWARGS."""
    clock, d = Clock(), None
    while True:
        try:
            name, *args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        result = None
        try:
            if name == "open":
                d = PersistDict(args[0], background_thread="disabled", clock=clock, **args[1])
            elif name == "close":
                clock.now = args[0]
                d.close()
            else:
                clock.now, method, arguments, keywords = args
                result = list(d.items()) if method == "_items_list" else getattr(d, method)(*arguments, **keywords)
                if d._store.idle is not None:
                    d.flush()
            outcome = ("returned", result)
        except Exception as error:
            outcome = ("raised", error)
        pickle.dump(outcome, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
