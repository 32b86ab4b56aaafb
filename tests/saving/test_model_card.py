import errno
import hashlib
import json
import re
import resource
import signal
import subprocess

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds
from small_models import compiled, dense_vae, trained

import kvae
from kvae.data import provenance
from kvae.data.sprites import Sprites, SpritesConfig
from kvae.saving import model_card

SPRITES = {"size": 8, "examples": 40}


@pytest.fixture
def x(rng):
    return rng.random((60, 6)).astype("float32")


def card_of(path):
    return json.loads(path.with_suffix(".card.json").read_text())


def test_the_same_run_has_the_same_card_and_the_same_weights_hash(x, tmp_path):
    found = []
    for name, seed in ("a", 0), ("b", 0), ("c", 1):
        keras.utils.clear_session()  # layers are numbered through a process
        model = compiled(seed, run_eagerly=True)
        model.fit(x, epochs=2, batch_size=25, verbose=0)
        model.save(tmp_path / f"{name}.keras")
        card = card_of(tmp_path / f"{name}.keras")
        for key in "file", "saved", "git":
            card.pop(key)
        found.append(card)
    assert found[0] == found[1]
    assert found[0]["weights"]["sha256"] != found[2]["weights"]["sha256"]
    assert found[0]["start"] != found[2]["start"]


def test_a_card_says_what_the_file_is_and_how_it_came_about(x, tmp_path, monkeypatch):
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a", "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    model, history = trained(x, fit={"validation_data": x[:20], "epochs": 3})
    model.save("a.keras")
    card = card_of(tmp_path / "a.keras")
    file = (tmp_path / "a.keras").read_bytes()
    assert card["file"] == {"name": "a.keras", "bytes": len(file), "sha256": hashlib.sha256(file).hexdigest()}
    assert card["weights"] == {"sha256": model_card.weights_hash(model.weights), "parameters": model.count_params()}
    assert (card["steps"], card["epochs"], card["seed"]) == (9, 3, 0)
    assert card["metrics"] == {name: values[-1] for name, values in history.items()}
    assert {"val_elbo", "kl_loss"} <= card["metrics"].keys()
    assert card["versions"]["keras"] == keras.__version__ and card["versions"]["kvae"] == kvae.__version__
    assert card["settings"]["compile_config"]["optimizer"]["config"]["learning_rate"] == pytest.approx(1e-2)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert card["git"] == {"commit": head}
    (data,) = card["data"]
    assert (data["name"], data["examples"], data["batch_size"]) == ("arrays", 60, 25)

    loaded = kvae.load("a.keras")
    loaded.run_eagerly = True
    loaded.fit(x, epochs=2, batch_size=25, verbose=0)
    loaded.fit(x[::-1], initial_epoch=5, epochs=6, batch_size=25, verbose=0)
    loaded.save("b.keras")
    later = card_of(tmp_path / "b.keras")
    assert (later["epochs"], later["steps"], later["start"]) == (6, 18, card["start"])
    assert later["data"][0] == data and len(later["data"]) == 2


def prepared(folder, shards):
    builder = Sprites(data_dir=folder, config=SpritesConfig(**SPRITES))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    files = sorted(builder.data_path.glob("*train*.tfrecord*"))
    return kvae.data.load("sprites", 16, data_dir=folder, **SPRITES)[0], [file.read_bytes() for file in files]


@pytest.mark.thorough
def test_two_builds_of_a_set_and_its_packed_copy_have_the_same_content(tmp_path):
    (one, files), (other, other_files) = prepared(tmp_path / "1", 1), prepared(tmp_path / "3", 3)
    assert files != other_files
    kvae.data.pack(kvae.data.load("sprites", 16, data_dir=tmp_path / "1", shuffle=0, **SPRITES), tmp_path / "packed")
    copy = kvae.data.load(tmp_path / "packed", 7)[0]
    stored = kvae.data.load("sprites", 40, data_dir=tmp_path / "1", shuffle=0, **SPRITES)[0]
    images = next(stored.as_numpy_iterator()).copy()
    expected = provenance.digest([image] for image in images)
    for stream in one, other, copy, kvae.data.binarize(other).map(lambda x: x):
        said = provenance.describe((stream, None, None))
        assert said["content"] == {
            "sha256": expected[0],
            "of": "40 examples that are stored, decoded, before any map",
        }
    said = provenance.describe((one, None, None))
    assert (said["name"], said["version"], said["part"], said["examples"]) == ("sprites/8x8_40", "1.0.0", "train", 40)
    images[39, 7, 7, 2] ^= 1
    assert provenance.digest([image] for image in images) != expected


def test_fit_reads_no_examples_for_a_card_until_it_is_saved(x, tmp_path, monkeypatch):
    kvae.data.pack(x, tmp_path / "packed")
    train = kvae.data.load(tmp_path / "packed", 25, validation=0)[0]
    hashed, digest = [], provenance.digest
    monkeypatch.setattr(provenance, "digest", lambda examples: hashed.append(1) or digest(examples))
    model = dense_vae()
    model.compile(keras.optimizers.Adam(), run_eagerly=True)
    for _ in range(2):
        model.fit(train, verbose=0)
    assert not hashed
    model.save(tmp_path / "a.keras")
    assert len(hashed) == 1
    (data,) = card_of(tmp_path / "a.keras")["data"]
    assert data["content"]["sha256"] == digest([row] for row in x)[0] and data["name"] == "packed"


def test_a_record_resolves_its_data_once_and_in_order():
    record, calls = model_card.Record([{"a": 0}]), []
    for number in (0, 1, 1, *range(2, 20)):
        record.add_data(lambda number=number: calls.append(number) or {"a": number})
    assert len(calls) < 21
    assert record.data == [{"a": number} for number in range(20)] and len(calls) == 21
    assert model_card.Record.decode(record.encode()) == record


def test_what_was_read_is_bounded():
    def rows(size):
        for number in range(10_000):
            counted.append(number)
            yield [np.full(size, number % 256, "uint8")]

    for size, most in (1, 1024), (2**20, 16), (2**25, 1):
        counted = []
        assert provenance.digest(rows(size))[1] == most and len(counted) <= most + 1


def test_nothing_is_overwritten_unless_that_is_asked_for(x, tmp_path):
    path = tmp_path / "a.keras"
    model, _ = trained(x)
    model.save(path)
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    other = dense_vae(seed=3)
    with pytest.raises(FileExistsError, match=r"a\.keras exists: give another name, or overwrite=True"):
        other.save(path)
    (tmp_path / "b.card.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"b\.card\.md exists"):
        other.save(tmp_path / "b.keras")
    assert {each: each.read_bytes() for each in before} == before
    other.save(path, overwrite=True)
    np.testing.assert_array_equal(kvae.load(path).get_weights()[0], other.get_weights()[0])
    with pytest.raises(ValueError, match=r"expected one that ends in \.keras"):
        model.save(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        model.save(tmp_path / "none" / "a.keras")


def test_a_file_that_is_called_partial_is_left_alone(x, tmp_path):
    model, _ = trained(x)
    model.save(tmp_path / "a.partial.keras")
    model.save(tmp_path / "a.keras")
    kvae.load(tmp_path / "a.partial.keras")


def test_a_save_that_fails_leaves_the_old_file_and_no_other(x, tmp_path):
    path = tmp_path / "a.keras"
    model, _ = trained(x)
    model.save(path)
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(OSError) as error:
            model.save(path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.errno == errno.EFBIG
    assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before
    kvae.load(path)


def test_where_its_card_cannot_be_written_no_model_is_either(x, tmp_path):
    model, _ = trained(x)
    with pytest.raises(OSError, match="name too long"):
        model.save(tmp_path / f"{248 * 'x'}.keras")  # which is short enough, and its card's isn't
    assert not list(tmp_path.iterdir())


def test_a_person_reads_the_main_entries_in_forty_lines_and_the_rest_is_in_the_json(x, tmp_path):
    model, history = trained(x, fit={"validation_data": x[:20], "epochs": 3})
    model.record.data.extend({"name": f"set {number}", "examples": 60} for number in range(50))
    model.record.metrics.update({f"metric {number}": 0.5 for number in range(50)})
    model.save(tmp_path / "a.keras")
    lines = (tmp_path / "a.card.md").read_text().splitlines()
    assert len(lines) <= 40 and lines[0] == "# a.keras"
    rows = dict(line.strip("| ").split(" | ") for line in lines[4:-2])
    card = card_of(tmp_path / "a.keras")
    assert rows["model"] == "VAE" and rows["codes"] == str(model.latent_dim)
    assert rows["trained"] == "3 epochs, 9 steps" and rows["parameters"] == str(model.count_params())
    assert "learning_rate=0.01" in rows["optimizer"] and rows["objective"].startswith("ELBO(beta=1")
    assert float(rows["elbo"]) == pytest.approx(history["elbo"][-1], rel=1e-5)
    assert rows["SHA-256 of the file"] == card["file"]["sha256"] and rows["data"] == "set 49, 60 examples"
    assert "a.card.json" in lines[-1] and card["settings"]["config"]["encoder"] and len(card["metrics"]) > 50


def test_a_users_text_is_no_markup_in_a_card(x, tmp_path):
    bad = "<img src=x onerror=alert(1)>|[a](javascript:b)`**_c_"
    path = tmp_path / f"{bad.replace('/', '')}.keras"
    model, _ = trained(x)
    model.record.metrics = {bad: 1.0, "bad\n# title": float("nan")}
    model.record.data.append({"name": bad})
    model.save(path)
    text = path.with_suffix(".card.md").read_text()
    assert not re.search(r"[<>`*\[\]]|javascript:|_c_|^# title", text.split("\n", 1)[1], re.MULTILINE)
    assert card_of(path)["data"][-1]["name"] == bad and card_of(path)["metrics"]["bad\n# title"] == "nan"


def test_a_card_has_plain_text_where_markdown_means_nothing_by_it(x, tmp_path):
    path = tmp_path / "a (b): c=1.keras"
    model, _ = trained(x)
    model.save(path)
    text = path.with_suffix(".card.md").read_text()
    assert "# a (b): c=1.keras" in text and "&#58;" not in text


@pytest.mark.parametrize("text", ["https://a.b", "mailto:a@b.c", "javascript:alert(1)", ":smile:"])
def test_an_address_is_no_link_in_a_card(text):
    assert text not in model_card.markdown({"file": {"name": text}, "settings": {}})


def test_pca_says_what_it_was_fitted_to(x, tmp_path):
    kvae.PCA(2).fit(x, verbose=0).save(tmp_path / "pca.keras")
    card = card_of(tmp_path / "pca.keras")
    assert card["data"] == [provenance.describe((x,))] and card["steps"] is None
