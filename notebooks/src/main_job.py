"""Makes the README's picture from the main job's: python notebooks/src/main_job.py [FOLDER [NAME]].

FOLDER is kvae-run by default, and NAME main_job; main_job_pairs is the picture of --pairs.
"""

import pathlib
import sys

from PIL import Image

folder, name = [*sys.argv[1:], *["kvae-run", "main_job"][len(sys.argv) - 1 :]]
target = pathlib.Path(__file__).parents[1] / "pictures" / f"{name}.png"
picture = Image.open(pathlib.Path(folder) / "comparison.png").convert("RGB")
picture.thumbnail((1400, 1400))
picture.save(target, optimize=True)
print(f"{target}: {target.stat().st_size // 1000} kB")
