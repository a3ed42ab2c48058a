"""A process of a sweep: a command that ends when its sweep does.

`python -m keras_lottery.cli.trial run ...` is `keras-lottery run ...`, but its
standard input is a pipe of whoever started it. However that one ends, by
`kill -9` or with its machine, the pipe closes; what then went on training
would hold the lock of its part, and nobody would wait for it.
"""

import os
import signal
import sys
import threading

from keras_lottery.cli import main


def watch():
    """Ends this process when its standard input is closed."""

    def wait():
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    watch()
    main.main(sys.argv[1:])
