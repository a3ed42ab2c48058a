"""Plays an experiment: replicates, and in each the ticket and its controls."""

import contextlib
import dataclasses
import datetime
import os
import time

from keras_lottery.runs import arms
from keras_lottery.runs import conditions
from keras_lottery.runs import formats
from keras_lottery.runs import parts
from keras_lottery.runs import paths
from keras_lottery.runs.trainer import Trainer
from keras_lottery.tickets import search
from keras_lottery.tickets import ticket_file
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.training import state
from keras_lottery.training import state_file
from keras_lottery.training import workers
from keras_lottery.training.compiling import MODES

KEEP = ("tickets", "all")


class Silence:
    """Hears how far a run is, and says nothing."""

    def start(self, steps):
        """Told how many steps are to be trained in all."""

    def begin(self, replicate, arm, level, density):
        """Told what is trained next."""

    def advance(self, steps):
        """Told that so many steps are trained."""

    def end(self, row, seconds):
        """Told that a training is done, and what came out."""


def play(experiment, directory, listener=None, *, keep="tickets"):
    """Trains what is not there yet; returns the rows of all that is.

    Args:
        experiment: The `Experiment`.
        directory: Its `RunDirectory`, created.
        listener: Like `Silence`.
        keep: `"tickets"`: of the controls only their numbers are kept;
            `"all"`: their trained tickets too.

    Returns:
        List of dicts: replicate, arm, level, counts and metrics.

    Raises:
        RunError: Another process is working on the run, or training diverged.
        WorkerLostError: A worker that trains with this one ended.
    """
    check_keep(keep)
    with _together(experiment, directory.lock()):
        player = _Player(experiment, directory, listener or Silence(), keep)
        player.play()
        directory.save_tables()
    return directory.rows()


def play_part(experiment, directory, part, listener=None, *, keep="tickets"):
    """Trains what is not there yet of one part; others may be played beside.

    The numbers are those that `play` comes to.

    Args:
        experiment: The `Experiment`.
        directory: Its `RunDirectory`, joined.
        part: A `Part` of the experiment.
        listener: Like `Silence`.
        keep: As in `play`.

    Raises:
        RunError: Another process is working on the part or plays the whole
            run, its tickets are not there, or training diverged.
    """
    check_keep(keep)
    with _together(experiment, directory.lock_part(part)):
        parts.check_tickets(part, experiment, directory)
        listener = listener or Silence()
        player = _Player(experiment, directory, listener, keep, part)
        player.play()
        directory.save_tables_beside()


def check_keep(keep):
    """Raises a ValueError for a `keep` that is not known."""
    if keep not in KEEP:
        raise ValueError(f"`keep` must be one of {KEEP}, got {keep!r}.")


@contextlib.contextmanager
def _together(experiment, lock):
    """Plays under the lock and the strategy, with the other workers."""
    strategy = experiment.strategy
    with lock, experiment.scope(), workers.watched(strategy):
        yield


class _Player:
    def __init__(self, experiment, directory, listener, keep, part=None):
        self.experiment, self.directory = experiment, directory
        self.listener, self.keep = listener, keep
        self.part = part
        self.model = experiment.model
        self.others = arms.of(experiment)
        self.lottery = arms.lottery(experiment, self.model)

    def drop_ends(self, replicate):
        """Removes the ends that no level goes on from any more."""
        done = [
            level
            for level in range(self.experiment.levels + 1)
            if self.directory.is_done(replicate, arms.TICKET, level)
        ]
        for level in done[:-1]:
            self.directory.drop((replicate, arms.TICKET, level), paths.END)

    def play(self):
        """Trains what is missing."""
        replicates = self.replicates()
        missing = {each: self.missing(each) for each in replicates}
        left = [
            (replicate, arm, level)
            for replicate, each in missing.items()
            for arm, level in each
        ]
        told = repr([(each, _name(arm), level) for each, arm, level in left])
        workers.agree(self.experiment.strategy, "what is left to train", told)
        steps = [
            self.experiment.steps - self.first_step(arm, level)
            for _, arm, level in left
        ]
        self.listener.start(sum(steps))
        for replicate in replicates:
            if self.is_wanted(None):
                self.drop_ends(replicate)
        if not steps:
            return
        self.trainer = Trainer(
            self.experiment, self.model, self.recorded_mode()
        )
        for replicate, each in missing.items():
            if each:
                self.replicate(replicate, each)

    def replicates(self):
        """Returns the replicates to be played."""
        if self.part is not None:
            return [self.part.replicate]
        return range(self.experiment.config.replicates)

    def is_wanted(self, arm):
        """Returns whether an arm is to be played."""
        return self.part is None or self.part.arm == _name(arm)

    def recorded_mode(self):
        """Returns how the levels that are done were compiled, or None."""
        found = {row.get("compiled") for row in self.directory.rows()}
        recorded = sorted(found.intersection(MODES))
        return recorded[0] if recorded else None

    def missing(self, replicate):
        """Returns (arm or None for the ticket, level) of what is not done."""
        pairs = [(None, level) for level in range(self.experiment.levels + 1)]
        for arm in self.others:
            pairs += [(arm, n) for n in range(1, self.experiment.levels + 1)]
        return [
            (arm, level)
            for arm, level in pairs
            if self.is_wanted(arm)
            and not self.directory.is_done(replicate, _name(arm), level)
        ]

    def first_step(self, arm, level):
        """Returns the step that a training starts at."""
        anew = arm is not None and arm.anew
        return 0 if anew else self.lottery.first_step(level)

    def replicate(self, replicate, missing):
        """Trains what is missing of a replicate: the tickets first."""
        self.trainer.begin(replicate, self.listener.advance)
        levels = [level for arm, level in missing if arm is None]
        if arms.needs_point(self.experiment) and 0 not in levels:
            self.trainer.point = self.state(replicate, 0, paths.POINT)
        if levels:
            self.tickets(replicate, min(levels))
        for arm, level in missing:
            if arm is not None:
                self.control(replicate, arm, level)

    def tickets(self, replicate, first):
        """Trains the ticket's levels from the first that is missing."""
        earlier = self.earlier(replicate, first - 1) if first else {}
        found = search.find_tickets(
            self.model,
            self.trainer,
            **arms.search_arguments(self.experiment),
            **earlier,
        )
        with contextlib.closing(found):  # lets go of the masks after an error
            for level in range(first, self.experiment.levels + 1):
                with self.training(replicate, None, level) as result:
                    result["ticket"] = self.signed(next(found), replicate)
                    result.update(self.states(level))

    def earlier(self, replicate, level):
        """Returns what a search needs to go on after a level that is done.

        What the tickets hold comes from them, not from a new draw: another
        version may draw other first weights.
        """
        found = {"after": self.ticket(replicate, level)}
        if arms.needs_point(self.experiment):
            found["point"] = self.trainer.point
        if arms.needs_end(self.experiment):
            found["end"] = self.state(replicate, level, paths.END)
        return found

    def control(self, replicate, arm, level):
        """Trains one control."""
        seed = None if arm.seed is None else arm.seed(replicate)
        dense = self.ticket(replicate, 0)
        ticket = self.ticket(replicate, level)
        with self.training(replicate, arm, level) as result:
            made = arm.make(dense, ticket, self.model, seed)
            first = self.first_step(arm, level)
            result["ticket"] = self.trainer.train_control(made, first)

    @contextlib.contextmanager
    def training(self, replicate, arm, level):
        """Times what is trained inside, and writes what it leaves."""
        where = (replicate, _name(arm), level)
        density = self.lottery.kept(level) / self.lottery.kept(0)
        self.listener.begin(*where, density)
        self.trainer.where = "replicate {}, {}, level {}".format(*where)
        began, result = time.time(), {}
        yield result
        seconds = time.time() - began
        row = self.row(where, arm, result["ticket"])
        self.directory.save(where, row, self.contents(arm, result))
        level = where[-1]
        if arm is None and level:  # the next one goes on from this one
            self.directory.drop((replicate, arms.TICKET, level - 1), paths.END)
        times = {
            **_where(where),
            "began": datetime.datetime.fromtimestamp(
                began, datetime.UTC
            ).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
        }
        if self.part is None:
            self.directory.add_to_tables(where, times)
        else:
            self.directory.add_to_times_beside(times)
        self.listener.end(row, seconds)

    def row(self, where, arm, ticket):
        """Returns the level's row of levels.csv."""
        replicate = where[0]
        return {
            **_where(where),
            "density": ticket.density,
            "kept": ticket.mask.kept,
            "size": ticket.mask.size,
            **dict(sorted(ticket.metrics.items())),
            **self.trainer.seeds(replicate),
            "control_seed": arm.seed(replicate) if arm and arm.seed else "",
            **conditions.of(
                self.model,
                self.experiment.config.distribute.strategy,
                self.trainer.mode,
            ),
        }

    def contents(self, arm, result):
        """Returns the files of a level, by name."""
        found = {paths.METRICS: formats.as_csv(self.trainer.rows)}
        if arm is None or self.keep == "all":
            found[paths.TICKET] = ticket_file.pack(result.pop("ticket"))
        result.pop("ticket", None)
        return found | {k: state_file.pack(v) for k, v in result.items()}

    def signed(self, ticket, replicate):
        """Returns a ticket that says which run it is of."""
        provenance = {
            **ticket.provenance,
            "run": os.path.basename(self.directory.path),
            "replicate": replicate,
            **self.trainer.seeds(replicate),
        }
        # Its number of levels changes when the run is extended: config.json.
        provenance.pop("schedule", None)
        return dataclasses.replace(ticket, provenance=provenance)

    def states(self, level):
        """Returns the snapshots that a stopped run needs to go on."""
        found = {}
        if level == 0 and arms.needs_point(self.experiment):
            found[paths.POINT] = self.trainer.point
        if arms.needs_end(self.experiment):
            found[paths.END] = state.snapshot(self.model, self.model.optimizer)
        return found

    def ticket(self, replicate, level):
        """Returns a ticket that is done."""
        return Ticket.load(
            self.directory.file(replicate, arms.TICKET, level, paths.TICKET)
        )

    def state(self, replicate, level, name):
        """Returns a snapshot that is on disk."""
        path = self.directory.file(replicate, arms.TICKET, level, name)
        return state_file.read(path)


def _name(arm):
    return arms.TICKET if arm is None else arm.name


def _where(where):
    return dict(zip(("replicate", "arm", "level"), where))
