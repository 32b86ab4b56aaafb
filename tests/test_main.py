import json
import re

import keras
import numpy as np
import pytest

import kvae
from kvae import __main__ as job
from kvae.__main__ import main
from kvae.data.sprites.render import draw_factors


def test_the_main_job_leaves_a_table_models_and_pictures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(job, "SAMPLES", 8)
    output = tmp_path / "run"
    main(
        f"--data-dir {tmp_path / 'data'} --output {output} --examples 200 --size 8 --epochs 1 --latent-dim 2 "
        "--batch-size 50 --components 5".split()
    )
    printed = capsys.readouterr().out
    assert str(output) in printed
    for name in ("PCA", "Autoencoder", "VAE"):
        assert re.search(rf"^{name} +\d+\.\d\d", printed, re.M)
        assert keras.saving.load_model(output / f"{name.lower()}.keras").latent_dim == 2
    numbers = json.loads((output / "results.json").read_text())
    assert numbers["PCA"]["squared_error"] > 0
    assert all({"sample_distance", "attribute_score"} <= row.keys() for row in numbers.values())
    learned, plain = numbers["VAE, learned prior"], numbers["VAE"]
    assert learned["squared_error"] == plain["squared_error"] and learned["elbo"] > plain["elbo"]
    assert isinstance(kvae.load(output / "vae.keras").prior, kvae.MixtureOfGaussians)
    assert len((output / "vae.card.md").read_text().splitlines()) <= 40
    pictures = {path.name for path in output.glob("*.png")}
    assert pictures == {
        f"{name}.png" for name in ("comparison", "reconstructions", "samples", "traversals", "history", "manifold")
    }


@pytest.mark.thorough
def test_pairs_are_an_option_for_the_vae(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(job, "SAMPLES", 8)
    main(
        f"--data-dir {tmp_path / 'data'} --output {tmp_path / 'run'} --examples 100 --size 8 --epochs 2 --latent-dim 3 "
        "--batch-size 50 --components 5 --pairs".split()
    )
    assert isinstance(kvae.load(tmp_path / "run" / "vae.keras"), kvae.AdaGVAE)
    with pytest.raises(SystemExit):
        main(["--pairs", "--data", "mnist"])
    assert "--pairs is for sprites, of which kvae draws pairs, and the data are mnist" in capsys.readouterr().err


def test_the_table_of_other_images_has_no_columns_of_sprites():
    row = {"squared_error": 1.0, "elbo": 2.0, "kl_loss": 3.0}
    table = job._table({"VAE": row, "VAE, learned prior": row}, {"VAE": 4.0})
    assert "samples" not in table and "attributes" not in table
    assert re.search(r"^VAE, learned prior +1\.00 +>2\.0 +3\.0 *$", table, re.M)


def test_attributes_are_labels_of_the_latents_that_tell_most_of_them():
    rng = np.random.default_rng(0)
    factors = draw_factors(0, 0, 0, 2_000)
    codes = np.stack([rng.random(2_000), factors["x"] ** 3, -factors["y"], factors["scale"]], axis=1)
    labels = job._labels(job._information(codes, factors))
    assert {latent: label.split()[0] for latent, label in labels.items() if latent} == {1: "x", 2: "y", 3: "scale"}


@pytest.mark.parametrize("option", ["--examples=x", "--epochs"])
def test_options_that_make_no_sense_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        main([option])
    assert "usage: python -m kvae" in capsys.readouterr().err
