"""Paints made-up orthophotos with exact labels: suburbs whose true boundaries are not simply the strongest edges.

What makes refinement earn its keep: roofs take the colours of soil, gravel and asphalt around them; ridges, shadows,
paved yards, cars and field rows make edges where no class changes; and crowns hang over roofs and roads, where the
label is what is seen from above.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

GROUND, BUILDING, ROAD, TREE, FIELD = range(5)

Floats = NDArray[np.float32]
_GRASS, _SOIL, _GRAVEL = (104, 116, 74), (146, 124, 96), (142, 138, 130)
_ASPHALT = (112, 112, 114)
_ROOFS = ((150, 92, 72), (140, 126, 104), (136, 132, 126), (118, 116, 116), (164, 150, 128), (112, 110, 88))
_CROPS = ((112, 122, 70), (138, 128, 82), (96, 112, 66), (150, 134, 100))


@dataclass
class _Canvas:
    """What is painted so far: colours (S, S, 3) 0..255, ids (S, S), and the light that shadows leave (S, S) 0..1."""

    rng: np.random.Generator
    size: int
    colour: Floats = field(init=False)
    label: NDArray[np.uint8] = field(init=False)
    light: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.colour = np.zeros((self.size, self.size, 3), np.float32)
        self.label = np.full((self.size, self.size), GROUND, np.uint8)
        self.light = np.ones((self.size, self.size), np.float32)

    def noise(self, scale: float, octaves: int = 1) -> Floats:
        """Smooth noise of unit deviation whose coarsest blobs are `scale` pixels wide; octaves halve scale, gain."""
        total = np.zeros((self.size, self.size), np.float32)
        for octave in range(octaves):
            cells = max(2, round(self.size * 2**octave / scale)) + 3
            grid = self.rng.standard_normal((cells, cells), dtype=np.float32)
            total += cv2.resize(grid, (self.size, self.size), interpolation=cv2.INTER_CUBIC) * 0.55**octave
        return total / total.std()

    def mask(self, polygon: NDArray) -> NDArray[np.bool_]:
        """Pixels inside a polygon of (x, y) vertices."""
        out = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(out, [np.round(polygon * 16).astype(np.int32)], 1, shift=4)
        return out.astype(bool)

    def shade(self, mask: NDArray[np.bool_], origin: tuple[int, int], shift: NDArray, strength: float) -> None:
        """Darkens what lies in the direction of `shift` (x, y) from a mask, but not the mask itself.

        The mask (h, w) lies at `origin` (row, column) and is wide enough to hold its shadow: a scene has hundreds.
        """
        swept = np.zeros_like(mask)
        for step in np.linspace(0, 1, max(2, int(np.hypot(*shift) / 2))):
            move = np.array([[1, 0, shift[0] * step], [0, 1, shift[1] * step]], np.float32)
            swept |= cv2.warpAffine(mask.astype(np.uint8), move, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0
        dark = swept & ~mask
        light = self.light[origin[0] : origin[0] + mask.shape[0], origin[1] : origin[1] + mask.shape[1]]
        light[dark] = np.minimum(light[dark], strength)


def paint_scene(size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A scene's image (3, size, size), values 1..255, and its exact label (size, size), ids 0..4."""
    canvas = _Canvas(rng, size)
    sun = rng.uniform(0, 2 * np.pi)
    cast = np.array([np.cos(sun), np.sin(sun)])
    _paint_ground(canvas)
    _paint_fields(canvas)
    lines = _paint_roads(canvas)
    _paint_buildings(canvas, lines, cast)
    _paint_trees(canvas, cast)
    _mottle(canvas)
    return _expose(canvas), canvas.label


def _paint_ground(canvas: _Canvas) -> None:
    """Lawn, soil and gravel in patches with soft borders."""
    blend = np.stack([np.exp(1.1 * canvas.noise(s, 3)) for s in (220, 150, 110)], axis=-1)
    blend /= blend.sum(axis=-1, keepdims=True)
    canvas.colour[:] = blend @ np.array([_GRASS, _SOIL, _GRAVEL], np.float32)
    canvas.colour += (10 * canvas.noise(12, 3) + 7 * canvas.noise(3))[..., None]


def _paint_fields(canvas: _Canvas) -> None:
    """One or two fields in corners: rows of crop over colours near the lawn's, with a wavy edge."""
    size, rng = canvas.size, canvas.rng
    y, x = np.mgrid[:size, :size].astype(np.float32)
    for corner in rng.permutation(4)[: rng.integers(1, 3)]:
        across, down = (x, size - x)[corner % 2], (y, size - y)[corner // 2]
        lean = rng.uniform(0.6, 1.6)
        inside = across + lean * down + 5 * canvas.noise(60, 2) < size * rng.uniform(0.42, 0.62)
        angle, pitch = rng.uniform(0, np.pi), rng.uniform(5, 9)
        phase = (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / pitch + 0.7 * canvas.noise(90)
        paint = np.array(_CROPS[rng.integers(len(_CROPS))], np.float32) + rng.normal(0, 6, 3).astype(np.float32)
        rows = 6 * np.sin(phase) * (0.6 + 0.3 * canvas.noise(120)) + 6 * canvas.noise(50, 3) + 3 * canvas.noise(3)
        canvas.colour[inside] = (paint + rows[..., None])[inside]
        canvas.label[inside] = FIELD


def _paint_roads(canvas: _Canvas) -> list[Floats]:
    """Two or three bending streets with worn asphalt, markings and cars; returns their centre lines, (n, 2) x, y."""
    size, rng = canvas.size, canvas.rng
    lines: list[Floats] = []
    heading = rng.uniform(0, np.pi)
    for number in range(rng.integers(2, 4)):
        turn = heading + (number % 2) * np.pi / 2 + rng.normal(0, 0.12)
        along, side = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
        s = np.linspace(-0.8, 0.8, 160) * size
        bend = size * (
            rng.uniform(0.02, 0.06) * np.sin(s / size * rng.uniform(3, 6) + rng.uniform(0, 6))
            + (0.3 if number == 2 else rng.uniform(-0.25, 0.0))
        )
        line = (size / 2 + s[:, None] * along + bend[:, None] * side).astype(np.float32)
        width = int(rng.integers(15, 24))
        points = [np.round(line * 16).astype(np.int32)]
        mask = np.zeros((size, size), np.uint8)
        cv2.polylines(mask, points, False, 1, width, shift=4)
        kerb = cv2.dilate(mask, np.ones((5, 5), np.uint8)).astype(bool) & (canvas.label != ROAD)
        canvas.colour[kerb] = np.array(_GRAVEL, np.float32) + 4 * canvas.noise(4)[kerb][:, None]
        inside = mask.astype(bool)
        tone = np.array(_ASPHALT, np.float32) + rng.normal(0, 9)
        wear = 8 * canvas.noise(70, 3) + 4 * canvas.noise(3)
        canvas.colour[inside] = (tone + wear[..., None])[inside]
        canvas.label[inside] = ROAD
        for a, b in zip(line[::4], line[2::4], strict=False):
            cv2.line(canvas.colour, tuple(map(int, a)), tuple(map(int, b)), (186, 184, 176), 1)
        lines.append(line)
    for line in lines:
        for at in rng.integers(8, len(line) - 8, 8):
            _paint_car(canvas, line[at], line[at + 1] - line[at])
    return lines


def _paint_car(canvas: _Canvas, at: Floats, along: Floats) -> None:
    """A car on one lane, with its glass; it stays part of the road."""
    along = along / np.linalg.norm(along)
    side = np.array([-along[1], along[0]])
    centre = at + side * canvas.rng.choice([-5, 5])
    paint = canvas.rng.choice(np.array([(205, 205, 205), (52, 54, 60), (146, 50, 46), (66, 86, 126)], np.float32))
    for length, breadth, tone in ((7.5, 3.2, paint), (3.0, 2.6, paint * 0.5)):
        body = centre + np.array(
            [along * length * i + side * breadth * j for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        )
        inside = canvas.mask(body) & (canvas.label == ROAD)
        canvas.colour[inside] = tone


def _paint_buildings(canvas: _Canvas, lines: list[Floats], cast: NDArray) -> None:
    """Houses along the streets and a few elsewhere: pitched or flat roofs, wings, paved yards, drives, shadows."""
    size, rng = canvas.size, canvas.rng
    taken = np.isin(canvas.label, (ROAD, FIELD))
    taken = cv2.dilate(taken.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    sites: list[tuple[NDArray, float]] = []
    for line in lines:
        for at in range(2, len(line) - 2, 2):
            way = line[at + 1] - line[at - 1]
            angle = float(np.arctan2(way[1], way[0]))
            for sign in (-1, 1):
                off = sign * rng.uniform(38, 50)
                sites.append((line[at] + off * np.array([-np.sin(angle), np.cos(angle)]), angle))
    sites += [(rng.uniform(0, size, 2), rng.uniform(0, np.pi)) for _ in range(size // 8)]
    grain = 5 * canvas.noise(18, 2) + 3 * canvas.noise(2)
    for site, angle in sites:
        if not (site >= 0).all() or not (site < size).all():
            continue
        half = rng.uniform((15, 11), (32, 20))
        parts = [_rectangle(site, angle, half)]
        if rng.random() < 0.45:
            wing = site + _turn((half[0] * rng.uniform(-0.7, 0.7), half[1] * rng.choice([-1, 1])), angle)
            parts.append(_rectangle(wing, angle, (half[1] * 0.7, half[0] * 0.5)))
        body = np.logical_or.reduce([canvas.mask(p) for p in parts])
        if (taken & body).any() or body.sum() < 250:
            continue
        taken |= cv2.dilate(body.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
        _paint_house(canvas, body, site, angle, half, cast, grain)


def _paint_house(
    canvas: _Canvas,
    body: NDArray[np.bool_],
    site: NDArray,
    angle: float,
    half: NDArray,
    cast: NDArray,
    grain: Floats,
) -> None:
    """One house: a yard in nearly its roof's colour beside it, the shadow, then the roof."""
    rng = canvas.rng
    if rng.random() < 0.45:  # takes the colour of the ground around it
        near = cv2.dilate(body.astype(np.uint8), np.ones((13, 13), np.uint8)).astype(bool) & ~body
        tone = canvas.colour[near].mean(axis=0) + rng.normal(0, 7) + rng.normal(0, 2, 3)
    else:
        tone = np.array(_ROOFS[rng.integers(len(_ROOFS))], float) + rng.normal(0, 9) + rng.normal(0, 3, 3)
    if rng.random() < 0.55:
        beside = site + _turn((half[0] * rng.uniform(-0.6, 0.6), half[1] * rng.choice([-1.5, 1.5])), angle)
        yard = canvas.mask(_rectangle(beside, angle, (half[0] * 0.6, half[1] * 0.8))) & (canvas.label == GROUND)
        canvas.colour[yard] = tone + rng.normal(0, 5) + grain[yard][:, None]
    canvas.shade(body, (0, 0), cast * rng.uniform(6, 15), 0.52)
    canvas.light[body] = 1.0
    y, x = np.nonzero(body)
    u = (x - site[0]) * np.cos(angle) + (y - site[1]) * np.sin(angle)
    v = -(x - site[0]) * np.sin(angle) + (y - site[1]) * np.cos(angle)
    roof = np.broadcast_to(tone, (len(x), 3)).copy()
    style = rng.random()
    if style < 0.75:  # pitched: the side away from the sun is darker, and both have courses of tiles
        facing = np.sign(v) * float(np.dot(_turn((0, 1), angle), -cast))
        if style < 0.25:  # hipped
            hip = np.abs(u) - np.abs(v) > half[0] - half[1]
            facing = np.where(hip, np.sign(u) * float(np.dot(_turn((1, 0), angle), -cast)), facing)
        roof *= (1 + 0.17 * facing)[:, None]
        roof += 3.5 * np.sin(v * 2 * np.pi / 3.3)[:, None]
        roof[np.abs(v) < 0.7] += 14
    else:  # flat: plant on top
        for _ in range(rng.integers(1, 5)):
            du, dv = rng.uniform(-0.7, 0.7, 2) * half
            roof[(np.abs(u - du) < 3) & (np.abs(v - dv) < 2)] += rng.choice([-35, 40])
    canvas.colour[y, x] = roof + grain[y, x][:, None]
    canvas.label[body] = BUILDING


def _paint_trees(canvas: _Canvas, cast: NDArray) -> None:
    """Crowns of lobes: over eaves and kerbs, in gardens, in clumps; each with a lit side and a shadow."""
    size, rng = canvas.size, canvas.rng
    built = canvas.label == BUILDING
    outline = np.argwhere(built & ~cv2.erode(built.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool))
    kerb = np.argwhere(cv2.Laplacian((canvas.label == ROAD).astype(np.uint8), cv2.CV_8U) > 0)
    centres = [rng.uniform(0, size, 2) for _ in range(size // 14)]
    for edge, count in ((outline, size // 12), (kerb, size // 26)):
        if len(edge):
            centres += list(edge[rng.integers(len(edge), size=count)] + rng.normal(0, 7, (count, 2)))
    for clump in rng.uniform(0, size, (3, 2)):
        centres += list(clump + rng.normal(0, size * 0.035, (9, 2)))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    leaf = 17 * canvas.noise(7, 2) + 12 * canvas.noise(2)
    for cy, cx in centres:
        radius = rng.uniform(7, 19)
        reach = int(radius * 2.2) + 2  # the crown and its shadow
        top, left = max(0, int(cy) - reach), max(0, int(cx) - reach)
        box = (slice(top, max(0, int(cy) + reach)), slice(left, max(0, int(cx) + reach)))
        dy, dx = y[box] - cy, x[box] - cx
        if not dy.size:
            continue
        theta = np.arctan2(dy, dx)
        rim = 1 + sum(rng.uniform(0.02, 0.075) * np.sin(k * theta + rng.uniform(0, 6)) for k in (2, 3, 5, 8))
        distance = np.hypot(dy, dx) / (radius * rim)
        crown = distance < 1
        canvas.shade(crown, (top, left), cast * radius * 0.7, 0.6)
        tone = np.array((82, 98, 62), float) + rng.normal(0, 11) + rng.normal(0, 4, 3)
        lit = 1 - 0.26 * (dx * cast[0] + dy * cast[1]) / radius - 0.18 * distance**2
        paint = tone * lit[..., None] + leaf[box][..., None]
        canvas.colour[box][crown] = paint[crown]
        canvas.light[box][crown] = 1.0
        canvas.label[box][crown] = TREE


def _mottle(canvas: _Canvas) -> None:
    """Damp, litter and dappled light: blotches that follow no class, as strong as the steps between classes.

    Without them a refiner that only knows colours finds the true edges by itself.
    """
    canvas.colour *= np.clip(1 + 0.13 * canvas.noise(16, 3), 0.6, 1.4)[..., None]
    for band in range(3):
        canvas.colour[..., band] += 5 * canvas.noise(22, 3)


def _expose(canvas: _Canvas) -> NDArray[np.uint8]:
    """The picture (3, S, S) a camera makes of the canvas: soft shadows, haze, optics and sensor noise."""
    light = cv2.GaussianBlur(canvas.light, (0, 0), 0.8)
    shade = light[..., None] + (1 - light[..., None]) * np.array([0.0, 0.02, 0.1], np.float32)
    picture = canvas.colour * shade * (1 + 0.03 * canvas.noise(400))[..., None]
    picture = cv2.GaussianBlur(picture, (0, 0), 0.75) + canvas.rng.normal(0, 2.5, picture.shape)
    return np.clip(picture * 1.08 + 6, 1, 255).astype(np.uint8).transpose(2, 0, 1)


def _turn(offset: tuple[float, float], angle: float) -> NDArray:
    """Offset (x, y) turned by an angle in radians."""
    return np.array(
        [offset[0] * np.cos(angle) - offset[1] * np.sin(angle), offset[0] * np.sin(angle) + offset[1] * np.cos(angle)]
    )


def _rectangle(centre: NDArray, angle: float, half: NDArray | tuple[float, float]) -> NDArray:
    """Corners (4, 2) x, y of a turned rectangle with half sides `half`."""
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return centre + np.array([_turn((i * half[0], j * half[1]), angle) for i, j in corners])
