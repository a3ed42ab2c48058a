"""The player: trains what is missing of a run, tickets before their controls.

What a level came from is in its record. So a ticket that is trained again, as
its file was damaged, costs one training: what came from it stays where it comes
out the same, bit for bit, and is trained again where it does not.
"""

import contextlib
import datetime

from keras_lottery.runs import arms
from keras_lottery.runs import outcome
from keras_lottery.runs import paths
from keras_lottery.runs.trainer import Trainer
from keras_lottery.tickets import search
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.training import state
from keras_lottery.training import state_file
from keras_lottery.training import workers
from keras_lottery.training.compiling import MODES


class Player:
    """Plays an experiment, or a part of it, into its directory.

    Args:
        experiment: The `Experiment`.
        directory: Its `RunDirectory`, locked.
        saver: The `Saver`.
        listener: Like `play.Silence`.
        keep: As in `play.play`.
        part: The `Part` to play; None for all.
    """

    def __init__(self, experiment, directory, saver, listener, keep, part=None):
        self.experiment, self.directory = experiment, directory
        self.saver, self.listener = saver, listener
        self.keep, self.part = keep, part
        self.model = experiment.model
        self.others = arms.of(experiment)
        self.lottery = arms.lottery(experiment, self.model)

    def play(self):
        """Trains what is missing."""
        replicates = self.replicates()
        left = {each: self.missing(each) for each in replicates}
        told = repr([(r, _name(a), n) for r in left for a, n in left[r]])
        workers.agree(self.experiment.strategy, "what is left to train", told)
        steps = [
            self.experiment.steps - self.first_step(arm, level)
            for missing in left.values()
            for arm, level in missing
        ]
        self.listener.start(sum(steps))
        for replicate in replicates:
            if self.is_wanted(None):
                self.drop_ends(replicate)
        if not steps:
            return
        self.trainer = Trainer(
            self.experiment, self.model, self.saver, self.recorded_mode()
        )
        for replicate, missing in left.items():
            if missing:
                self.replicate(replicate)

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
        """Returns (arm or None for the ticket, level) of what is to train."""
        levels = range(self.experiment.levels + 1)
        pairs = [(None, level) for level in levels]
        pairs += [(arm, level) for arm in self.others for level in levels[1:]]
        return [
            (arm, level)
            for arm, level in pairs
            if self.is_wanted(arm) and not self.is_done(replicate, arm, level)
        ]

    def is_done(self, replicate, arm, level):
        """Returns whether a level is there, and came from the tickets there.

        While a ticket is missing, what came from it is left as it is.
        """
        where = (replicate, _name(arm), level)
        if not self.directory.is_done(*where):
            return False
        now = self.parents(replicate, arm, level)
        then = self.directory.parents(*where)
        return all(then.get(role) in (now[role], None) for role in now)

    def parents(self, replicate, arm, level):
        """Returns the sha256 of the tickets that a level comes from, by role.

        Those that are not there are left out.
        """
        if arm is None:
            roles = {"ticket": level - 1} if level else {}
        else:
            roles = {"dense": 0, "ticket": level}
        return {
            role: self.directory.checksums(replicate, arms.TICKET, parent)[
                paths.TICKET
            ]
            for role, parent in roles.items()
            if self.directory.is_done(replicate, arms.TICKET, parent)
        }

    def first_step(self, arm, level):
        """Returns the step that a training starts at."""
        anew = arm is not None and arm.anew
        return 0 if anew else self.lottery.first_step(level)

    def replicate(self, replicate):
        """Trains what is missing of a replicate: the tickets first."""
        self.trainer.begin(replicate, self.listener.advance)
        if arms.needs_point(self.experiment) and self.is_done(
            replicate, None, 0
        ):
            self.trainer.point = self.state(replicate, 0, paths.POINT)
        if self.is_wanted(None):
            self.tickets(replicate)
        for arm, level in self.missing(replicate):
            self.control(replicate, arm, level)

    def tickets(self, replicate):
        """Trains the ticket's levels that are missing."""
        for level in range(self.experiment.levels + 1):
            if not self.is_done(replicate, None, level):
                self.tickets_from(replicate, level)
        self.drop_ends(replicate)

    def tickets_from(self, replicate, missing):
        """Trains a level, and those after it up to one that is there."""
        first, earlier = self.restart(replicate, missing), {}
        if first:
            earlier = self.earlier(replicate, first - 1)
        else:
            self.trainer.restart()  # something may have been trained before
        found = search.find_tickets(
            self.model,
            self.trainer,
            **arms.search_arguments(self.experiment),
            **earlier,
        )
        with contextlib.closing(found):  # lets go of the masks after an error
            for level in range(first, self.experiment.levels + 1):
                if level > missing and self.may_stop(replicate, level):
                    return
                with self.training(replicate, None, level) as result:
                    ticket = next(found)
                    result["ticket"] = outcome.signed(
                        ticket,
                        self.directory,
                        replicate,
                        self.trainer.seeds(replicate),
                    )
                    result.update(self.states(level))

    def may_stop(self, replicate, level):
        """Returns whether a level is there, and what comes can do without it.

        Where a later level is missing, and goes on from the end of this one,
        it is trained once more now.
        """
        later = range(level, self.experiment.levels + 1)
        if not arms.needs_end(self.experiment):
            later = [level]
        return all(self.is_done(replicate, None, each) for each in later)

    def restart(self, replicate, level):
        """Returns the level to begin with so that one that is missing comes.

        Rewinds that keep something of the end of a level go on from the last
        end, which is dropped once the next level is there: then all begins
        again.
        """
        if not level or not arms.needs_end(self.experiment):
            return level
        where = (replicate, arms.TICKET, level - 1)
        return level if paths.END in self.directory.checksums(*where) else 0

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
        parents = self.parents(replicate, arm, level)
        # One that came from another ticket is done no longer: from here on
        # its folder is that of a level that is being trained.
        if self.directory.forget(where) and self.part is None:
            self.directory.save_tables()
        result = {}
        with self.saver.training(where, parents):
            yield result
            began, seconds = self.saver.times()
            row = outcome.row(where, arm, result["ticket"], self.trainer)
            kept = arm is None or self.keep == "all"
            contents = outcome.contents(result, self.trainer.rows, kept)
            time = {**outcome.named(where), **_times(began, seconds)}
            self.directory.save(where, row, contents, parents, time)
            self.saver.done()
            if arm is None and level:  # the next one goes on from this one
                before = replicate, arms.TICKET, level - 1
                self.directory.drop(before, paths.END)
            if self.part is None:
                self.directory.save_tables()
        self.listener.end(row, seconds)
        self.saver.obey()

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

    def drop_ends(self, replicate):
        """Removes the ends that no level goes on from any more."""
        for level in range(self.experiment.levels):
            here, after = (
                (replicate, arms.TICKET, n) for n in (level, level + 1)
            )
            if self.directory.is_done(*here) and self.directory.is_done(*after):
                self.directory.drop(here, paths.END)


def _name(arm):
    return arms.TICKET if arm is None else arm.name


def _times(began, seconds):
    moment = datetime.datetime.fromtimestamp(began, datetime.UTC)
    return {
        "began": moment.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }
