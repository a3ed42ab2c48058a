"""The folder of `fit(..., checkpoint_dir=...)`: what it is of, what is done.

`lottery.json` says what it is of. Every finished level has its ticket and a
record with the ticket's checksum; every JSON file holds its own. Checkpoints
are beside them, two at most.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re

from keras_lottery import file_lock
from keras_lottery import files
from keras_lottery import regular_file
from keras_lottery import sealed_json
from keras_lottery.errors import DamageError
from keras_lottery.errors import RunError
from keras_lottery.errors import TicketError
from keras_lottery.tickets import fit_identity
from keras_lottery.tickets import lottery
from keras_lottery.tickets import ticket_file
from keras_lottery.training.checkpoint import Checkpoints

FORMAT = 1
LOTTERY, LOCK = "lottery.json", "lottery.lock"
_CHECKPOINT = r"checkpoint-[0-9]{8}-[0-9a-f]{32}\.safetensors"

log = logging.getLogger(__name__)


class FitFolder:
    """Where one lottery is kept; of finished levels only the tickets.

    Args:
        path: The folder; it need not exist. Other files in it are left alone.
        identity: What `fit_identity.of` says.
        stem: What files of finished levels begin with: `"level"`.

    Attributes:
        path: The folder, absolute: a callback may change the current one.
        first: Digest of the state that the lottery began with, so that files of
            another one are not taken for its own; None where none has begun.
    """

    def __init__(self, path, identity, stem):
        self.path, self.first = _local(path), None
        self._identity, self._stem = identity, stem
        text = fit_identity.canonical(identity)
        self._of = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._checkpoints = Checkpoints(self.path, self._of)

    @contextlib.contextmanager
    def locked(self):
        """Keeps all other processes out.

        Raises:
            RunError: Another one works in the folder.
            ValueError: It is of another lottery.
        """
        with self._explained():
            os.makedirs(self.path, exist_ok=True)
            held = file_lock.take(self._inside(LOCK), self.path)
        with held:
            files.remove_unfinished(self.path)
            self._open()
            yield self

    def begin(self, first):
        """Notes that the lottery begins, from a state with this digest."""
        self.first = first
        self._write_lottery()

    def finished(self):
        """Returns (ticket, record) of every level up to the first not whole.

        What is damaged is named in a warning.
        """
        found = []
        while (each := self._level(len(found))) is not None:
            found.append(each)
        return found

    def newest(self, check):
        """Returns the last whole `Checkpoint` that passes a check, or None."""

        def whole(found):
            _check_record(found.record)
            if self.first not in (None, found.record["first"]):
                raise RunError("it is of another lottery.")
            check(found)

        found = self._checkpoints.newest(whole)
        if found is not None:
            self._is_of(found.record["first"])
        return found

    def save(self, checkpoint):
        """Writes a checkpoint.

        Raises:
            RunError: It cannot be written, or the folder was removed.
        """
        self._check_there()
        checkpoint.record["first"] = self.first
        with self._explained():
            self._checkpoints.save(checkpoint)

    def finish(self, index, ticket, history):
        """Writes the ticket of a level, then its record.

        Args:
            index: Which level.
            ticket: Its `Ticket`.
            history: Dict of what JSON can hold.

        Raises:
            RunError: It cannot be written, or the folder was removed.
        """
        self._check_there()
        content = ticket_file.pack(ticket)
        record = {
            "of": self._of,
            "first": self.first,
            "index": index,
            "ticket": hashlib.sha256(content).hexdigest(),
            "history": history,
        }
        with self._explained():
            files.write_whole(self._ticket(index), content)
            files.write_whole(self._record(index), sealed_json.pack(record))

    def has_traces(self):
        """Returns whether something was kept here, whole or not."""
        patterns = [rf"{self._stem}_[0-9]+\.(json|safetensors)"]
        if self.first is None:
            patterns.append(_CHECKPOINT)
        traces = re.compile("|".join(patterns))
        return any(map(traces.fullmatch, os.listdir(self.path)))

    def _check_there(self):
        """Refuses to begin another folder where this one was removed."""
        if not os.path.lexists(self._inside(LOTTERY)):
            raise RunError(
                f"checkpoint_dir={self.path!r} was removed while in use: its "
                f"{LOTTERY} is gone. Restore it from a copy to go on from "
                "there, or remove all of it to begin anew."
            )

    def _open(self):
        """Reads what the folder is of."""
        found = _read(self._inside(LOTTERY))
        if found is None:
            return
        differing = fit_identity.differences(found["of"], self._identity)
        if differing:
            raise ValueError(
                f"checkpoint_dir={self.path!r} holds another lottery: "
                f"{'; '.join(differing[:5])}. Give this one a folder of its "
                "own, or remove that one to begin anew. Nothing was changed."
            )
        self.first = found["first"]
        now = lottery.versions()
        if found["versions"] != now:
            log.warning(
                "%s was begun with %s; here are %s: what follows may differ in "
                "rounding.", self.path, found["versions"], now,
            )  # fmt: skip

    def _is_of(self, first):
        """Notes what the folder is of, where `lottery.json` was lost."""
        if self.first is None:
            self.first = first
            self._write_lottery()

    def _write_lottery(self):
        record = {
            "format": FORMAT,
            "of": self._identity,
            "first": self.first,
            "versions": lottery.versions(),
        }
        with self._explained():
            files.write_whole(self._inside(LOTTERY), sealed_json.pack(record))

    def _level(self, index):
        record = _read(self._record(index))
        if record is None:
            if os.path.lexists(self._ticket(index)):
                log.info("%s has no record.", self._ticket(index))
            return None
        path = self._ticket(index)
        try:
            self._check(record, index)
            content = regular_file.read(path)
            if hashlib.sha256(content).hexdigest() != record["ticket"]:
                raise DamageError(f"{path} is not as it was written.")
            found = ticket_file.read(path), record
        except (DamageError, OSError, TicketError) as error:
            log.warning("It is made again: %s", error)
            return None
        self._is_of(record["first"])
        return found

    def _check(self, record, index):
        wanted = [self._of, index, self.first or record["first"]]
        found = [record[name] for name in ("of", "index", "first")]
        if found != wanted:
            raise DamageError(
                f"{self._record(index)} is of another lottery, or level."
            )

    def _ticket(self, index):
        return self._inside(f"{self._stem}_{index}.safetensors")

    def _record(self, index):
        return self._inside(f"{self._stem}_{index}.json")

    def _inside(self, name):
        return os.path.join(self.path, name)

    @contextlib.contextmanager
    def _explained(self):
        """Makes an error of the system one that says what to do."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            mend = "Free room on its disk" if full else "Mend that"
            raise RunError(
                f"Cannot write to checkpoint_dir={self.path!r}: "
                f"{error.strerror}. What is saved there stays whole. {mend}, "
                "then the same call goes on."
            ) from error


def _local(path):
    """Returns a path as it stands whatever the current folder becomes."""
    path = os.fsdecode(path)
    if re.match(r"\w+://", path):
        raise ValueError(
            f"checkpoint_dir={path!r} must be a local folder, and is a URL. "
            "Mount what it names as a folder, and give the path of that."
        )
    return os.path.abspath(path)


def _check_record(record):
    kinds = {"first": str, "level": int, "trained": bool, "step": int}
    for name, kind in kinds.items():
        if type(record.get(name)) is not kind:
            raise RunError(f"its {name} is {record.get(name)!r}.")


def _read(path):
    """Returns what a sealed JSON file holds, or None; names damaged ones."""
    try:
        return sealed_json.read(path)
    except FileNotFoundError:
        return None
    except DamageError as error:
        log.warning("%s", error)
        return None
