"""A file is there whole or not at all, and a folder has one writer at a time."""

import errno
import os
import signal
import subprocess
import sys

import filelock
import pytest

from kvae import files


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    with files.atomic_write(path) as file:
        file.write(b"old")
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".") and temporary.name.endswith(".partial")
    with pytest.raises(InterruptedError), files.atomic_write(path) as file:
        file.write(b"new")
        raise InterruptedError
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"a": b"old"}


def test_a_locked_folder_is_refused_with_the_message_and_free_afterwards(tmp_path):
    for _ in range(2):
        with (
            files.lock(tmp_path, "first"),
            pytest.raises(FileExistsError, match="second"),
            files.lock(tmp_path, "second"),
        ):
            pass
        assert not list(tmp_path.iterdir())


@pytest.mark.processes
def test_a_killed_process_leaves_no_lock(tmp_path):
    code = "import sys; from kvae import files\nwith files.lock(sys.argv[1], ''): print('locked', flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(FileExistsError), files.lock(tmp_path, "locked"):
            pass
        process.send_signal(signal.SIGKILL)
    with files.lock(tmp_path, "locked"):
        assert all(name.startswith(".") for name in os.listdir(tmp_path))
    assert not os.listdir(tmp_path)


def test_a_file_system_without_locks_lets_one_write(tmp_path, monkeypatch):
    def acquire(self):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with files.lock(tmp_path, "locked"):
        pass
