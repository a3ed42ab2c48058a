"""Stopping on request: SIGTERM and Ctrl-C wait until a checkpoint is saved."""

import contextlib
import os
import signal
import threading
import time

from keras_lottery.errors import Preempted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_AT_ONCE = 1.0  # seconds within which signals count as one
_SAID = b"Stopping: a checkpoint is saved first. Again, to stop at once.\n"


class Stopping:
    """Whether this process was asked to stop.

    Made by `heard`. A signal while something goes on that can be saved is
    noted, and heeded by `obey`; another one a second later, or one at another
    time, stops at once.
    """

    def __init__(self):
        self.asked, self._waits, self._heard = None, False, 0.0

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
        now = time.monotonic()
        # Who stops a group of processes, and then each, sends several at once.
        again = self.asked is not None and now - self._heard > _AT_ONCE
        if self.asked is None:
            self.asked, self._heard = number, now
        if again or not self._waits:
            self.obey()
        with contextlib.suppress(OSError):  # nobody may be listening any more
            os.write(2, _SAID)


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
