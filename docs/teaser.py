"""The picture at the top of the README: image, coarse map and refined map of one place, from a finished demo.

    python docs/teaser.py
    python docs/teaser.py --storage /data/runs --data /data/synthetic --row 336 --col 352

Reads the newest maps of the demo's test scene below STORAGE, crops the same square out of the three rasters, and
enlarges it without interpolation, so that every pixel of the maps can be seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field
from rasterio.windows import Window

from idgbr.cli import JobFlags, run_job
from idgbr.config.load import load_experiment
from idgbr.errors import UserError
from idgbr.evaluation.figures import paint

GAP_PX, TITLE_PX = 12, 34
"""Space between the panels, and above them for the titles."""


class Flags(JobFlags):
    """Flags of the picture."""

    config: str = "configs/demo.yaml"
    """The demo's experiment, for the classes' colours."""
    storage: str = "runs"
    """The experiment's resources.storage."""
    data: str = ".data/synthetic"
    """Folder of the synthetic scenes."""
    row: int = Field(336, ge=0)
    """First row of the square."""
    col: int = Field(352, ge=0)
    """First column of the square."""
    size: int = Field(256, ge=16)
    """Side of the square in pixels of the maps."""
    scale: int = Field(2, ge=1)
    """Side of a map's pixel in the picture."""
    output: str = "docs/images/teaser.png"
    """The PNG file."""


def find_maps(storage: Path, data: Path) -> dict[str, Path]:
    """Image, coarse map and refined map of one scene, the newest refined one that has all three.

    Raises:
        UserError: There is none.
    """
    refined_maps = sorted(
        storage.glob("results/demo-*/maps/*.tif"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for refined in refined_maps:
        coarse = sorted(storage.glob(f"coarse/*/{refined.name}"), key=lambda path: path.stat().st_mtime)
        image = [path for path in data.glob("*_image.tif") if refined.stem.startswith(path.stem)]
        if coarse and image:
            return {"image": image[0], "coarse map": coarse[-1], "refined map": refined}
    raise UserError(f"{storage}: found no maps of the demo with their image in {data}; expected those of `make demo`")


def draw(panels: dict[str, np.ndarray], scale: int) -> Image.Image:
    """Panels (H, W, 3) uint8 side by side below their titles, every pixel enlarged to `scale` x `scale`."""
    height, width = (side * scale for side in next(iter(panels.values())).shape[:2])
    canvas = Image.new("RGB", (len(panels) * (width + GAP_PX) - GAP_PX, height + TITLE_PX), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=24)
    for number, (title, panel) in enumerate(panels.items()):
        left = number * (width + GAP_PX)
        pen.text((left, 0), title, fill="#333333", font=font)
        picture = Image.fromarray(panel).resize((width, height), Image.Resampling.NEAREST)
        canvas.paste(picture, (left, TITLE_PX))
    return canvas.quantize(256, dither=Image.Dither.NONE)


def main(flags: Flags) -> dict[str, object]:
    """Draws the picture."""
    colours = [spec.colour for spec in load_experiment(flags.config).data.classes]
    square = Window(flags.col, flags.row, flags.size, flags.size)
    panels: dict[str, np.ndarray] = {}
    for title, path in find_maps(Path(flags.storage), Path(flags.data)).items():
        with rasterio.open(path) as raster:
            if flags.row + flags.size > raster.height or flags.col + flags.size > raster.width:
                raise UserError(
                    f"--row, --col, --size: found a square beyond {path} of {raster.height} x {raster.width} px"
                )
            bands = [1, 2, 3] if title == "image" else [1]
            pixels = raster.read(bands, window=square)
        panels[title] = pixels.transpose(1, 2, 0) if title == "image" else paint(pixels[0], colours)
    output = Path(flags.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    draw(panels, flags.scale).save(output, optimize=True)
    return {"picture": str(output), "bytes": output.stat().st_size}


if __name__ == "__main__":
    run_job(main, Flags, __doc__)
