"""Two processes that prepare the same set, one of which is killed in it."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.processes

OTHERS = "incomplete.ABCDEF_1.0.0"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    command = [sys.executable, __file__, str(tmp_path_factory.mktemp("tfds"))]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_others_wait_and_one_of_them_prepares_what_the_killed_one_did_not(outcome):
    assert outcome["while it ran"] == [[OTHERS, "the killed one's"], ["killed"]]
    assert outcome["waiters"] == [{"rows": [20, 2, 2], "waited": True}] * 2
    assert len(outcome["prepared by"]) == 2  # the killed one and one other


def test_nothing_is_left_of_the_killed_one_and_all_of_others(outcome):
    assert outcome["in the end"] == sorted(["1.0.0", OTHERS])


def main(data_dir):
    import kvae  # noqa: F401  once, for all; TensorFlow starts its threads later, in each child

    folder = data_dir / "sprites" / "8x8_20"
    (folder / OTHERS).mkdir(parents=True)
    killed = child(prepare, data_dir, "killed")
    wait_for(lambda: (data_dir / "killed.begun").exists())
    waiters = [child(prepare, data_dir, name) for name in ("first", "second")]
    wait_for(lambda: all((data_dir / f"{name}.waits").exists() for name in ("first", "second")))
    time.sleep(0.2)
    names = [
        OTHERS if name == OTHERS else "the killed one's"
        for name in sorted(os.listdir(folder), key=lambda name: name != OTHERS)
        if name.startswith("incomplete")
    ]
    ran = [names, begun(data_dir)]
    os.kill(killed, signal.SIGKILL)
    for process in (killed, *waiters):
        os.waitpid(process, 0)
    found = [json.loads((data_dir / f"{name}.json").read_text()) for name in ("first", "second")]
    left = sorted(os.listdir(folder))
    print(json.dumps({"while it ran": ran, "waiters": found, "prepared by": begun(data_dir), "in the end": left}))


def child(function, *args):
    process = os.fork()
    if not process:
        function(*args)
        os._exit(0)
    return process


def begun(data_dir):
    return sorted(path.stem for path in data_dir.glob("*.begun"))


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def prepare(data_dir, name):
    import warnings

    import kvae
    from kvae.data.sprites import Sprites

    generate = Sprites._generate_examples

    def noted(self, split, examples):
        (data_dir / f"{name}.begun").touch()
        if name == "killed":
            time.sleep(100)
        yield from generate(self, split, examples)

    waited = []

    def waits(message, *args, **kwargs):
        if "another process is preparing" in str(message):
            waited.append(message)
            (data_dir / f"{name}.waits").touch()

    Sprites._generate_examples = noted
    warnings.showwarning = waits
    parts = kvae.data.load("sprites", 100, size=8, examples=20, data_dir=data_dir)
    rows = [int(sum(len(batch) for batch in part)) for part in parts]
    (data_dir / f"{name}.json").write_text(json.dumps({"rows": rows, "waited": bool(waited)}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
