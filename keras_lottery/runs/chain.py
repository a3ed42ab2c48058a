"""How the levels of a run hang together: what each came from."""

import os

from keras_lottery.errors import RunError
from keras_lottery.runs import arms
from keras_lottery.runs import paths
from keras_lottery.tickets import proofs
from keras_lottery.tickets import rewind
from keras_lottery.training import state_file
from keras_lottery.training.state import Snapshot

# These controls train the weights of their ticket, under another mask.
_SAME_START = ("shuffle", "randomize", "one_shot")


class Chain:
    """The tickets of a run, looked at in order; two of them are in memory.

    Args:
        run: The `RunDirectory`.
        config: Its configuration, a dict; empty if it cannot be read.
    """

    def __init__(self, run, config):
        self._run = run
        name = config.get("rewind", {}).get("name")
        self._rewind = rewind.REWINDS.get(name)
        self._first = self._last = None  # (replicate, level, Ticket)

    def differences(self, where, ticket):
        """Returns what does not fit to the levels before, as sentences.

        Args:
            where: (replicate, arm, level): tickets first, in order.
            ticket: Its `Ticket`.

        Raises:
            RunError: A file that it needs cannot be read.
        """
        replicate, arm, level = where
        if arm != arms.TICKET:
            return self._of_control(replicate, ticket)
        found = []
        if level == 0:
            self._first = replicate, level, ticket
        else:
            found += self._of_mask(replicate, level, ticket)
            found += self._of_start(replicate, level, ticket)
        self._last = replicate, level, ticket
        return found + self._of_states(where, ticket)

    def differences_of_parents(self, where):
        """Returns which tickets that a level came from are there no more."""
        replicate, arm, level = where
        of = {"dense": 0, "ticket": level - (arm == arms.TICKET)}
        return [
            f"it came from another {arms.TICKET}/{of[role]} than is there"
            for role, digest in self._run.parents(*where).items()
            if role in of
            and self._run.is_done(replicate, arms.TICKET, of[role])
            and self._digest(replicate, of[role]) not in (digest, None)
        ]

    def _digest(self, replicate, level):
        try:
            sums = self._run.checksums(replicate, arms.TICKET, level)
        except RunError:  # told of where it is looked at
            return None
        return sums.get(paths.TICKET)

    def _of_mask(self, replicate, level, ticket):
        before = _of(self._last, replicate, level - 1)
        if before is None or before.mask.shapes != ticket.mask.shapes:
            return []
        sentence = proofs.nested(ticket.mask, before.mask)
        if sentence is None:
            return []
        return [
            f"its mask keeps weights that the level before removed: {sentence}"
        ]

    def _of_start(self, replicate, level, ticket):
        """Compares a start with what the rewind goes back to, or keeps."""
        if self._rewind is None:
            return []
        if self._rewind.start != "level":
            first = _of(self._first, replicate, 0)
            return _differing(ticket, first, "that of level 0")
        before = _of(self._last, replicate, level - 1)
        if before is None or not {"weights", "others"} <= {*self._rewind.keeps}:
            return []
        then = Snapshot({**before.weights("end"), **before.end_state}, None)
        now = Snapshot(_start(ticket), None)
        return [
            f"its start is not the end of the level before: {sentence}"
            for part in ("weights", "others")
            if (sentence := proofs.PARTS[part](now, then, ticket.mask, None))
        ]

    def _of_control(self, replicate, ticket):
        if ticket.provenance.get("control") not in _SAME_START:
            return []
        first = _of(self._first, replicate, 0)
        return _differing(ticket, first, "that of level 0")

    def _of_states(self, where, ticket):
        """Compares snapshots that a run goes on from with the ticket's."""
        last = {**ticket.weights("end"), **ticket.end_state}
        found = []
        for name, values, what in (
            (paths.POINT, _start(ticket), "start"),
            (paths.END, last, "end"),
        ):
            path = self._run.file(*where, name)
            starts = self._rewind and self._rewind.start != "level"
            if not os.path.exists(path) or (name == paths.POINT and not starts):
                continue
            taken = state_file.read(path)
            if sentence := proofs.of_all(taken.model, values):
                found.append(f"{name} is not its {what}: {sentence}")
        return found


def _of(held, replicate, level):
    """Returns the ticket in memory if it is the one that is wanted.

    By where it lies: what it says of itself may be wrong.
    """
    if held is None or held[:2] != (replicate, level):
        return None
    return held[2]


def _differing(ticket, first, what):
    if first is None:
        return []
    sentence = proofs.of_all(_start(ticket), _start(first))
    return [f"its start is not {what}: {sentence}"] if sentence else []


def _start(ticket):
    return {**ticket.start, **ticket.start_state}
