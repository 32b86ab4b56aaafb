"""Makes the README's picture from the main job's: python notebooks/src/main_job.py [FOLDER], kvae-run by default."""

import pathlib
import sys

from PIL import Image

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "kvae-run")
target = pathlib.Path(__file__).parents[1] / "pictures" / "main_job.png"
picture = Image.open(folder / "comparison.png").convert("RGB")
picture.thumbnail((1400, 1400))
picture.save(target, optimize=True)
print(f"{target}: {target.stat().st_size // 1000} kB")
