import collections
import gc
import os
import resource

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads that wait for one another cost more than small matrices
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import numpy as np
import pytest
import tensorflow as tf

# A second device, on the same processor, for what is said of replicas.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


CPU_SECONDS, USED = collections.Counter(), collections.Counter()  # by file, by process


def pytest_addoption(parser):
    parser.addoption("--cpu", action="store_true", help="print the CPU seconds of each file")
    parser.addoption("--chains", type=int, default=5, help="killed runs that change their workers, in test_workers.py")


def cpu_seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Each report says the CPU seconds of the process until then, also to the process that started it."""
    report = yield
    report.cpu_seconds, report.process = cpu_seconds(), os.getpid()
    return report


def pytest_runtest_logreport(report):
    """The import of TensorFlow is in a process's first file. A process that died reports nothing of its own."""
    if not hasattr(report, "process"):
        return
    CPU_SECONDS[report.nodeid.split("::")[0]] += report.cpu_seconds - USED[report.process]
    USED[report.process] = report.cpu_seconds


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--cpu"):
        terminalreporter.section("CPU seconds")
        for name, seconds in CPU_SECONDS.most_common():
            terminalreporter.write_line(f"{seconds:7.1f} {name}")
        terminalreporter.write_line(f"{CPU_SECONDS.total():7.1f} in all")


def pytest_collection_finish():
    """The search for garbage leaves out the objects of the imports, and comes more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def strategy():
    """Two replicas. One strategy serves all tests: TensorFlow mixes up the collectives of two in a process."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def float64():
    """Models made within compute in float64."""
    for dtype in ("float64", "float32"):
        keras.config.set_floatx(dtype)  # of a network's inputs
        keras.config.set_dtype_policy(dtype)
        if dtype == "float64":
            yield


def pytest_generate_tests(metafunc):
    if "chain" in metafunc.fixturenames:
        metafunc.parametrize("chain", range(metafunc.config.getoption("chains")))
