"""Synthetic digits read pixel by pixel: sequential image classification without files."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from bptt.contracts import at_least, between, true_or_false
from bptt.tasks.base import Batch, cross_entropy
from bptt.tasks.pixels import pixel_order, scan
from bptt.tasks.synthetic import SyntheticTask

FONT = """
.###. ..#.. .###. ##### ...#. ##### ..##. ##### .###. .###.
#...# .##.. #...# ...#. ..##. #.... .#... ....# #...# #...#
#..## ..#.. ....# ..#.. .#.#. ####. #.... ...#. #...# #...#
#.#.# ..#.. ...#. ...#. #..#. ....# ####. ..#.. .###. .####
##..# ..#.. ..#.. ....# ##### ....# #...# .#... #...# ....#
#...# ..#.. .#... #...# ...#. #...# #...# .#... #...# ...#.
.###. .###. ##### .###. ...#. .###. .###. .#... .###. .##..
"""


class Digits(SyntheticTask):
    """Digit classification, one pixel per timestep, row by row or in a fixed random order; the class is due at the end.

    Each image is size × size: a digit of 5 × 7 pixels, with probability ½ its strokes one pixel wider to the right,
    at a uniformly random position, with a brightness uniform over (½, 1), plus normal noise of the given standard
    deviation, clamped to [0, 1].

    Features (T, B, 1) in [0, 1], T = size². Cross-entropy in nats over 10 classes; ln 10, `baseline`, for a
    uniform guess.
    permuted: read the pixels of all images in one random order, drawn from `permutation_seed`.
    """

    input_size = 1
    per_sequence = True
    output_size = 10
    baseline = math.log(10)

    def __init__(
        self,
        *,
        batch_size: int,
        size: int = 14,
        noise: float = 0.1,
        permuted: bool = False,
        permutation_seed: int = 0,
        **counts: int,
    ):
        at_least(7, size=size, remedy="a digit is 7 pixels high")
        super().__init__(length=size**2, batch_size=batch_size, **counts)
        between(0, math.inf, noise=noise)
        at_least(0, permutation_seed=permutation_seed)
        true_or_false(permuted=permuted)
        self.size = size
        self.noise = noise
        self.order = pixel_order(self.length, permutation_seed if permuted else None)

    def draw(self, generator: torch.Generator) -> Batch:
        labels = torch.randint(10, (self.batch_size,), generator=generator, dtype=torch.uint8)
        wide = torch.randint(2, (self.batch_size, 1, 1), generator=generator, dtype=torch.bool)
        glyphs = font()[labels.int()]
        glyphs = torch.where(wide, glyphs | glyphs.roll(1, dims=2), glyphs)
        top = torch.randint(self.size - 6, (self.batch_size,), generator=generator)
        left = torch.randint(self.size - 5, (self.batch_size,), generator=generator)
        brightness = 0.5 + 0.5 * torch.rand(self.batch_size, 1, 1, generator=generator)
        images = brightness * pasted(glyphs, top, left, self.size)
        images += self.noise * torch.randn(images.shape, generator=generator)
        return scan(images.clamp(0, 1), labels, self.order)

    errors = staticmethod(cross_entropy)

    @property
    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(self.output_size)]

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": MulticlassAccuracy(10, average="micro")}


def font() -> Tensor:
    """The ten digits (10, 7, 6), with an empty column on the right for wide strokes."""
    rows = [[[pixel == "#" for pixel in f"{digit}."] for digit in row.split()] for row in FONT.split("\n")[1:-1]]
    return torch.tensor(rows).transpose(0, 1)


def pasted(glyphs: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Paste each glyph (B, 7, 6) into an empty image (B, size, size), its corner at row `top`, column `left`, (B,)."""
    images = torch.zeros(len(glyphs), size, size)
    index = torch.arange(len(glyphs)).view(-1, 1, 1)
    rows = top.view(-1, 1, 1) + torch.arange(7).view(1, -1, 1)
    columns = left.view(-1, 1, 1) + torch.arange(6).view(1, 1, -1)
    images[index, rows, columns] = glyphs.float()
    return images
