"""Makes the README's picture from the main job's: python notebooks/src/main_job.py [FOLDER], kvae-run by default."""

import pathlib
import sys

from PIL import Image

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "kvae-run")
target = pathlib.Path(__file__).parents[1] / "pictures" / "main_job.png"
names = "reconstructions", "samples", "traversals"
reconstructions, samples, traversals = (Image.open(folder / f"{name}.png").convert("RGB") for name in names)

width = max(reconstructions.width, samples.width)
height = max(reconstructions.height + samples.height, traversals.height)
picture = Image.new("RGB", (width + traversals.width, height), "white")
picture.paste(reconstructions, (0, 0))
picture.paste(samples, ((width - samples.width) // 2, reconstructions.height))
picture.paste(traversals, (width, (height - traversals.height) // 2))
picture.thumbnail((1400, 1400))
picture.quantize(256, Image.Quantize.MEDIANCUT).save(target, optimize=True)
print(f"{target}: {target.stat().st_size // 1000} kB")
