"""The code of the README and of each guide runs from top to bottom, on few and small images."""

import pathlib
import re

import matplotlib
import pytest

import kvae

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "notebooks" / "guides").glob("*.md"))]
CODE = {page.stem: re.findall(r"```python\n(.*?)```", page.read_text(), re.S) for page in PAGES}


def load_few(name, *args, load=kvae.data.load, **kwargs):
    if name == "sprites":
        kwargs |= {"examples": 600, "size": 16}
    return load(name, *args, **kwargs)


@pytest.fixture(scope="module")
def names():
    """What the guides take for granted: streams of small sprites and a trained VAE."""
    matplotlib.use("Agg")
    train, validation, test = load_few("sprites", batch_size=100)
    shape = kvae.data.image_shape(train)
    encoder = kvae.networks.dense_encoder(shape, 10, hidden=(16,))
    decoder = kvae.networks.dense_decoder(shape, 10, hidden=(16,))
    vae = kvae.VAE(encoder, decoder, likelihood=kvae.GaussianLikelihood())
    vae.compile(kvae.optimizers.Adam(1e-3))
    vae.fit(train, epochs=1, verbose=0)
    return {"kvae": kvae, "train": train, "validation": validation, "test": test, "shape": shape, "vae": vae}


@pytest.mark.parametrize("name", [name for name, blocks in CODE.items() if blocks])
def test_the_code_of_a_page_runs(name, names, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kvae.data, "load", load_few)
    names = dict(names)
    for block in CODE[name]:
        exec(compile(block.replace("epochs=10)", "epochs=1)"), f"{name}.md", "exec"), names)
