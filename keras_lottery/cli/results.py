"""What is made of a run: the table, the report, the export."""

import os

from keras_lottery import directions
from keras_lottery.errors import RunError
from keras_lottery.report import curves
from keras_lottery.report import page
from keras_lottery.report import words
from keras_lottery.runs import made
from keras_lottery.runs import paths
from keras_lottery.runs import writing


def report(run, rows):
    """Prints the table and the summary, and writes report.html.

    Args:
        run: The `RunDirectory`.
        rows: Its rows.
    """
    said = write_page(run, rows)
    tickets = os.path.join(run.path, "replicate_0", "ticket", "level_*")
    print(
        f"{words.format_table(rows, said['metric'])}\n\n"
        f"{page.summary(rows, **said)}\n\n"
        f"report   {run.report_path}\n"
        f"table    {run.levels_path}\n"
        f"tickets  {tickets}"
    )


def write_page(run, rows):
    """Writes report.html; returns what it goes by: metric, mode and word."""
    config = run.read_config()
    metric, mode = deciding(config)
    rewound = config.get("rewind", {}).get("step", 0) > 0
    said = {
        "metric": metric,
        "mode": mode,
        # Frankle et al. (2020): what is rewound to a later step matches.
        "word": "matching" if rewound else "winning",
    }
    facts = {"command": run.read_command(), **_facts(config, rows)}
    title = config["name"]
    with writing.explained(run.path, run.report_path):
        page.write(rows, run.report_path, title=title, facts=facts, **said)
    return said


def export(run, rows, build):
    """Exports the winning ticket of replicate 0, unless that was done.

    Args:
        run: The `RunDirectory`.
        rows: Its rows.
        build: Function that returns the network, for a ticket that has no
            config to make it from.
    """
    from keras_lottery.exporting.saved_model import export as write
    from keras_lottery.tickets.ticket import Ticket

    level = exported_level(run.read_config(), rows)
    where = (0, "ticket", level)
    checksum = run.checksums(*where)[paths.TICKET]
    path = made.exported(run, checksum)
    if path is None:
        ticket = Ticket.load(run.file(*where, paths.TICKET))
        network = None if ticket.model_config else build()
        with writing.explained(run.path, run.export_path):
            path = write(ticket, run.export_path, model=network)
        made.note_export(run, path, checksum)
    print(f"export   {path}  (replicate 0, level {level})")


def deciding(config):
    """Returns the metric that decides, and `"max"` or `"min"`.

    Args:
        config: A run's configuration, a dict from a file.
    """
    train = config.get("train", {})
    names = [*train.get("metrics", []), "loss"]
    metric = train.get("metric") or names[0].rpartition(":")[2]
    try:
        mode = directions.mode_of(metric, train.get("mode") or None)
    except ValueError as error:
        raise RunError(f"The run's config.json is damaged: {error}") from error
    return metric, mode


def exported_level(config, rows):
    """Returns the winning level, or where there is none the best one."""
    metric, mode = deciding(config)
    tolerance = config.get("export", {}).get("tolerance", 0.0)
    winner = curves.winning_level(rows, tolerance, metric, mode)
    if winner is not None:
        return winner.ticket.level
    pruned = [
        row
        for row in rows
        if row["arm"] == "ticket" and row["replicate"] == 0 and row["level"]
    ]
    if not pruned:
        raise RunError(
            "No ticket of replicate 0 is trained yet, so there is none to "
            "export. The command that made the run continues it."
        )
    sign = 1 if mode == "max" else -1
    best = max(pruned, key=lambda row: sign * row[f"val_{metric}"])
    return best["level"]


def _facts(config, rows):
    first = rows[0] if rows else {}
    versions = [
        f"{name.removeprefix('version_')} {value}"
        for name, value in first.items()
        if name.startswith("version_")
    ]
    return {
        "data": config.get("data", {}).get("name", ""),
        "network": config.get("model", {}).get("name", ""),
        "seed": str(config.get("seed", "")),
        "replicates": str(len({row["replicate"] for row in rows})),
        "device": first.get("device", ""),
        "versions": ", ".join(versions),
    }
