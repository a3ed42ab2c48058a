"""Stopping on request: SIGTERM and Ctrl-C wait until a checkpoint is saved."""

import contextlib
import signal
import sys
import threading

from keras_lottery.errors import Preempted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """Whether this process was asked to stop.

    Made by `heard`. A signal while something goes on that can be saved is
    noted, and heeded by `obey`; the second one, or one at another time, stops
    at once.
    """

    def __init__(self):
        self.asked, self._waits = None, False

    @contextlib.contextmanager
    def deferred(self):
        """Signals are only noted inside: `asked` is looked at after calls."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def obey(self):
        """Stops, as was asked for.

        Raises:
            Preempted: By SIGTERM. Uncaught, the process exits with 75.
            KeyboardInterrupt: By Ctrl-C.
        """
        if self.asked == signal.SIGTERM:
            raise Preempted(75)
        raise KeyboardInterrupt

    def hear(self, number, frame=None):
        """Notes a signal, or stops at once."""
        del frame
        again, self.asked = self.asked is not None, number
        if again or not self._waits:
            self.obey()
        print(
            "Stopping: a checkpoint is saved first. Again, to stop at once.",
            file=sys.stderr,
            flush=True,
        )


@contextlib.contextmanager
def heard():
    """Hears SIGTERM and Ctrl-C inside; yields the `Stopping`.

    In a thread that is not the main one Python hears no signals, and a signal
    that whoever started the process has it ignore stays ignored.
    """
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {
        number: signal.signal(number, stopping.hear)
        for number in _SIGNALS
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
