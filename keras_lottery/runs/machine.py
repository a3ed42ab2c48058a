"""What a machine has: cores, memory and GPUs for trials."""

import functools
import os
import platform
import re

_GROUP = "/sys/fs/cgroup"


def cores():
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory():
    """Returns the bytes of memory that new processes can take.

    On Linux what is available, within the limit of a container; elsewhere
    half of what there is; None where nobody says.
    """
    found = [_available(), _left_in_container()]
    known = [each for each in found if each is not None]
    return min(known) if known else _half_of_all()


def used_memory():
    """Returns the bytes of memory that this process holds now, or None."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def gpus():
    """Returns the GPUs, as CUDA_VISIBLE_DEVICES names them.

    This process leaves them alone afterwards: TensorFlow takes all memory of
    every GPU that it sees.
    """
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    if not found:
        return []
    tf.config.set_visible_devices([], "GPU")
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [each.strip() for each in named.split(",") if each.strip()]
    if len(names) == len(found):
        return names
    return [str(index) for index in range(len(found))]


def jobs(threads, memory, *, cores, free):
    """Returns how many trials fit at once, at least one.

    Args:
        threads: Of a trial.
        memory: Bytes of a trial.
        cores: Of the machine.
        free: Bytes of memory; None if unknown.

    Example:

    >>> jobs(2, 3_000, cores=8, free=10_000)
    3
    """
    by_memory = cores if free is None else int(free // max(1, memory))
    return max(1, min(cores // threads, by_memory))


def _available():
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return None


def _left_in_container():
    """Returns what a control group (version 2) leaves, or None."""
    try:
        with open(f"{_GROUP}/memory.max", encoding="ascii") as file:
            most = int(file.read())
        with open(f"{_GROUP}/memory.current", encoding="ascii") as file:
            taken = int(file.read())
        with open(f"{_GROUP}/memory.stat", encoding="ascii") as file:
            held = dict(line.split() for line in file)
        # Files that were read lately are counted, and given up when needed.
        return max(0, most - taken + int(held.get("inactive_file", 0)))
    except (OSError, ValueError):  # there is none, or its limit is "max"
        return None


def _half_of_all():
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None
    return pages // 2


@functools.cache
def processor():
    """Returns the name of the processor, as its maker calls it.

    What computes decides last bits: it is one of a run's conditions.
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = re.findall(r"model name\s*:\s*(.+)", file.read())
    except OSError:
        names = []
    return names[0].strip() if names else platform.processor() or "not known"
