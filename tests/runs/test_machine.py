"""What a machine has, and how many trials fit."""

import pytest

from keras_lottery.runs import machine


@pytest.mark.parametrize(
    ("cores", "threads", "memory", "free", "jobs"),
    [
        (8, 1, 1, 100, 8),
        (8, 3, 1, 100, 2),
        (8, 1, 30, 100, 3),
        (2, 4, 1, 100, 1),
        (8, 1, 200, 100, 1),
        (8, 2, 200, None, 4),
    ],
)
def test_how_many_fit(cores, threads, memory, free, jobs):
    assert machine.jobs(threads, memory, cores=cores, free=free) == jobs


def test_a_container_counts_files_it_can_give_up(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    monkeypatch.setattr(machine, "_GROUP", str(tmp_path))
    assert machine.free_memory() == 1000 - 900 + 300
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory() > 1_000_000
    assert 50_000_000 < machine.used_memory() < 50_000_000_000


def test_gpus_are_called_as_the_environment_does(monkeypatch):
    import tensorflow as tf

    hidden = []
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind: ["one", "two"]
    )
    monkeypatch.setattr(
        tf.config, "set_visible_devices", lambda *seen: hidden.append(seen)
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-7")
    assert machine.gpus() == ["3", "GPU-7"]
    assert hidden == [([], "GPU")] * 2  # left to the trials
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert machine.gpus() == []
