"""A model of random weights and rasters of any size, for benchmarks of everything around the model."""

from __future__ import annotations

from pathlib import Path


def tiny_model(folder: Path, window: int) -> Path:
    """Two classes, three bands; both stages as small as they come.

    Args:
        folder: where it is written.
        window: inference window of both stages, an eighth of which overlaps.
    """
    import torch

    from idgbr.config.data import ClassSpec
    from idgbr.config.inference import CoarseWindows, InferenceConfig, RefinerWindows
    from idgbr.config.models import CoarseConfig, RefinerConfig, SamplerConfig
    from idgbr.datasets.normalisation import Normalisation
    from idgbr.models.coarse import build_coarse
    from idgbr.models.description import ModelSpec
    from idgbr.models.package import save_model
    from idgbr.models.refiner import Refiner

    torch.manual_seed(0)
    # The quickest of the library's decoders, and few latent cells: a large scene should not take hours.
    coarse = CoarseConfig(decoder="PSPNet", encoder="tu-mobilenetv3_small_050", weights="none")
    refiner = RefinerConfig(
        window=64, patch=16, channels=[16], attention_head_dim=8, guidance_width=8, guidance_heads=1,
        condition_depth=1, image_encoder="", self_conditioning=False,
    )  # fmt: skip
    cut = {"window": window, "overlap": window // 8, "batch": 4}
    spec = ModelSpec(
        name="tiny",
        classes=[ClassSpec(name="ground", colour="#d9d9d9"), ClassSpec(name="building", colour="#d7191c")],
        bands=[1, 2, 3],
        gsd=None,
        normalisation=Normalisation((100.0,) * 3, (40.0,) * 3),
        inference=InferenceConfig(coarse=CoarseWindows(**cut), refiner=RefinerWindows(**cut), precision="fp32"),
        sampler=SamplerConfig(steps=1, samples=1, dihedral=False),
        coarse=coarse,
        refiner=refiner,
    )
    parts = build_coarse(coarse, 2, 3, pretrained=False), Refiner(2, 3, refiner.model_dump(), pretrained=False)
    return save_model(folder, spec, *parts)


def write_raster(path: str, size: int, source: str = "", tiled: bool = True) -> None:
    """Writes a compressed GeoTIFF of size x size pixels: those of `source`, repeated, or noise over a ramp."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    if source:
        with rasterio.open(source) as file:
            corner = ((0, min(size, file.height)), (0, min(size, file.width)))
            pixels = file.read(list(file.indexes[:3]), window=corner)
        pixels = np.tile(pixels, (1, -(-size // pixels.shape[1]), -(-size // pixels.shape[2])))[:, :size, :size]
    else:
        noise = np.random.default_rng(0).integers(0, 8, (3, size, size), dtype=np.uint8)
        pixels = noise + (np.indices((size, size)).sum(0) // 32).astype(np.uint8)
    shape = {"count": len(pixels), "height": size, "width": size, "dtype": pixels.dtype.name, "crs": "EPSG:32633"}
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256} if tiled else {}
    transform = from_origin(500000, 5000000, 0.5, 0.5)
    with rasterio.open(path, "w", driver="GTiff", transform=transform, compress="DEFLATE", **shape, **blocks) as file:
        file.write(pixels)


def write_map(path: str, size: int, source: str = "") -> None:
    """Writes a map of size x size pixels with two classes: those of `source`, repeated, or patches of some 100 px."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin
    from scipy import ndimage

    if source:
        with rasterio.open(source) as file:
            ids = file.read(1, window=((0, min(size, file.height)), (0, min(size, file.width))))
        ids = np.tile(ids, (-(-size // ids.shape[0]), -(-size // ids.shape[1])))[:size, :size]
    else:
        noise = np.random.default_rng(0).standard_normal((size, size), np.float32)
        ids = (ndimage.gaussian_filter(noise, 8, mode="wrap") > 0).astype(np.uint8)
    shape = {"count": 1, "height": size, "width": size, "dtype": "uint8", "nodata": 255, "crs": "EPSG:32633"}
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "DEFLATE"}
    transform = from_origin(500000, 5000000, 0.5, 0.5)
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **shape, **blocks) as file:
        file.write(ids, 1)


def write_repeating(path: str, size: int, source: str) -> None:
    """Writes a VRT of size x size pixels that repeats the whole pixels of `source`, in as many bands."""
    from xml.etree.ElementTree import Element, ElementTree, SubElement

    import rasterio

    with rasterio.open(source) as file:
        height, width = file.shape
        block, bands = file.block_shapes[0], file.indexes
    root = Element("VRTDataset", rasterXSize=str(size), rasterYSize=str(size))
    for number in bands:
        band = SubElement(root, "VRTRasterBand", dataType="Byte", band=str(number))
        for row in range(0, size, height):
            for col in range(0, size, width):
                columns, rows = str(min(width, size - col)), str(min(height, size - row))
                one = SubElement(band, "SimpleSource")
                SubElement(one, "SourceFilename", relativetoVRT="0").text = str(Path(source).resolve())
                SubElement(one, "SourceBand").text = str(number)
                SubElement(
                    one, "SourceProperties", RasterXSize=str(width), RasterYSize=str(height), DataType="Byte",
                    BlockXSize=str(block[1]), BlockYSize=str(block[0]),
                )  # fmt: skip
                SubElement(one, "SrcRect", xOff="0", yOff="0", xSize=columns, ySize=rows)
                SubElement(one, "DstRect", xOff=str(col), yOff=str(row), xSize=columns, ySize=rows)
    ElementTree(root).write(path)
