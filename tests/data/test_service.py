"""tf.data service: a dispatcher and two workers on the loopback feed `fit`."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_models import dense_vae

import kvae.data

pytestmark = pytest.mark.processes

service = tf.data.experimental.service
ROWS, BATCH = 1001, 10


@pytest.fixture
def target():
    dispatcher = service.DispatchServer()
    address = dispatcher.target.removeprefix("grpc://")
    config = service.WorkerConfig(dispatcher_address=address, heartbeat_interval_ms=200)  # else they end in 30 s
    workers = [service.WorkerServer(config) for _ in range(2)]
    yield dispatcher.target
    workers.clear()  # ahead of the dispatcher, for which they might wait an hour


@pytest.mark.filterwarnings("ignore:To make it possible to preserve tf.data options")
def test_workers_of_the_data_service_give_each_example_once_an_epoch(target, rng, tmp_path):
    x = rng.integers(0, 256, (ROWS, 6), np.uint8)
    for i, image in enumerate(x):
        Image.fromarray(image[:, None]).save(tmp_path / f"{i:04}.png")
    served = kvae.data.from_folder(tmp_path, BATCH, shuffle=1).apply(
        service.distribute(service.ShardingPolicy.DYNAMIC, service=target)
    )
    for epoch in range(2):
        batches = list(served.epoch(epoch).as_numpy_iterator())
        assert sorted(map(len, batches)) == [1] + 100 * [BATCH]
        found = np.concatenate(batches).reshape(ROWS, 6)
        np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(x, axis=0))
    model = dense_vae((6, 1, 1))
    model.compile()
    losses = model.fit(served, epochs=2, verbose=0).history["loss"]
    assert served.cardinality() == 101 and int(model.optimizer.iterations) == 2 * 101
    assert losses[1] < losses[0]
