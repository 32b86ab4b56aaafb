import json
import re

import keras
import pytest

from kvae.__main__ import main


def test_the_main_job_leaves_a_table_models_and_pictures(tmp_path, capsys):
    output = tmp_path / "run"
    main(
        f"--data-dir {tmp_path / 'data'} --output {output} --examples 200 --size 16 --epochs 1 --latent-dim 2 "
        "--batch-size 50".split()
    )
    printed = capsys.readouterr().out
    assert str(output) in printed
    for name in ("PCA", "Autoencoder", "VAE"):
        assert re.search(rf"^{name} +\d+\.\d\d", printed, re.M)
        assert keras.saving.load_model(output / f"{name.lower()}.keras").latent_dim == 2
    numbers = json.loads((output / "results.json").read_text())
    assert numbers["PCA"]["squared_error"] > 0
    pictures = {path.name for path in output.glob("*.png")}
    assert pictures == {
        f"{name}.png" for name in ("comparison", "reconstructions", "samples", "traversals", "history", "manifold")
    }


@pytest.mark.parametrize("option", ["--examples=x", "--epochs"])
def test_options_that_make_no_sense_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        main([option])
    assert "usage: python -m kvae" in capsys.readouterr().err
