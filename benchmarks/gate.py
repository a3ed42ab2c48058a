"""Makes rounds out of a training that is one long call."""

import threading


class Gate:
    """Holds a training between two rounds until the next one is asked for.

    The training runs in a thread of its own and calls `stop` at the end of
    every round, from a callback. The first round begins right away.

    Example:

    >>> gate, done = Gate(), []
    >>> def play():
    ...     for number in range(3):
    ...         done.append(number)
    ...         gate.stop()
    >>> train = gate.opened_by(play)
    >>> train()
    >>> done
    [0, 1]
    """

    def __init__(self):
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._ended = None

    def stop(self):
        """Tells that a round is done, and waits to be let on."""
        self._done.release()
        self._go.acquire()

    def opened_by(self, play):
        """Starts `play`; returns the function that lets one round through.

        Raises:
            RuntimeError: The training ended or failed, in the call that waits
                for it.
        """

        def guarded():
            try:
                play()
                self._ended = RuntimeError("The training has no more rounds.")
            except BaseException as error:
                self._ended = error
            self._done.release()  # whoever waits must not wait for ever

        threading.Thread(target=guarded, daemon=True).start()
        self._finish()

        def train():
            self._go.release()
            self._finish()

        return train

    def _finish(self):
        self._done.acquire()
        if self._ended is not None:
            raise RuntimeError("The training has ended.") from self._ended
