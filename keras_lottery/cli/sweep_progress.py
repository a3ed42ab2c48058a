"""How far a sweep is: a bar on a terminal, quiet lines elsewhere."""

import contextlib
import sys

import tqdm


@contextlib.contextmanager
def shown(count):
    """Gives the function that is told of every trial that ended.

    Args:
        count: Of trials in all.
    """
    if sys.stderr.isatty():
        with tqdm.tqdm(
            total=count,
            unit="trial",
            dynamic_ncols=True,
            bar_format="{desc} |{bar}| {n_fmt} of {total_fmt} [{remaining}]",
        ) as bar:
            bar.update(0)
            yield lambda trial, outcome: _move(bar, trial, outcome)
    else:
        done = []

        def told(trial, outcome):
            done.append(trial)
            share = f"{len(done) / count:4.0%}"
            print(f"[{share}] {_line(trial, outcome)}", flush=True)

        yield told


def _move(bar, trial, outcome):
    if outcome.code != 0:
        bar.write(_line(trial, outcome), file=sys.stderr)
    bar.set_description_str(trial.name, refresh=False)
    bar.update(1)


def _line(trial, outcome):
    if outcome.code is None and not outcome.reason:
        return f"{trial.name} not started"
    state = "done" if outcome.code == 0 else "FAILED"
    spent = f" ({outcome.seconds:.1f} s)" if outcome.seconds else ""
    return f"{trial.name} {state}{spent}"
