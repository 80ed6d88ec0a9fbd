"""Two pictures of a page and what differs between them, in one."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFont

from sublet.domain.errors import BrowserFailed

_BAR, _GAP, _LETTERS = 28, 8, 15
"""Pixels: the height of a caption, the room between panels, the height of letters."""

_PAPER, _INK = (244, 244, 246), (24, 24, 28)
_SAME, _OTHER = 0.25, (220, 0, 60)
"""How much of the page is left where nothing differs, and the colour of what does."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`picture` is a PNG; of `pixels`, `differing` are not exactly the same in both."""

    picture: bytes
    pixels: int
    differing: int

    @property
    def share(self) -> float:
        """The part that differs, 0 to 1."""
        return self.differing / self.pixels


def compare(one: bytes, other: bytes, captions: tuple[str, str]) -> Comparison:
    """Both PNGs and their difference, side by side. Where one is larger, the other counts as white
    there. Raises BrowserFailed."""
    pictures = [_opened(one), _opened(other)]
    size = tuple(max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    first, second = (_spread(picture, (size[0], size[1])) for picture in pictures)
    mask = _mask(first, second)
    differing = mask.histogram()[255]
    pixels = size[0] * size[1]
    told = f"{100 * differing / pixels:.2f} % of the pixels differ"
    panels = [first, second, _difference(first, mask)]
    return Comparison(_joined(panels, (*captions, told)), pixels, differing)


def _opened(data: bytes) -> Image.Image:
    """The picture; browsers send it, so nothing but PNG is read."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrowserFailed(f"The browser's picture cannot be read: {error}.") from error


def _spread(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    whole = Image.new("RGB", size, "white")
    whole.paste(picture)
    return whole


def _mask(first: Image.Image, second: Image.Image) -> Image.Image:
    """255 where any of the three colours differs by anything, else 0."""
    bands = ImageChops.difference(first, second).split()
    most = ImageChops.lighter(ImageChops.lighter(bands[0], bands[1]), bands[2])
    return most.point([0, *[255] * 255])


def _difference(first: Image.Image, mask: Image.Image) -> Image.Image:
    pale = Image.blend(
        Image.new("RGB", first.size, "white"), first.convert("L").convert("RGB"), _SAME
    )
    pale.paste(_OTHER, mask=mask)
    return pale


def _joined(panels: list[Image.Image], captions: tuple[str, ...]) -> bytes:
    width, height = panels[0].size
    across = len(panels) * width + (len(panels) - 1) * _GAP
    whole = Image.new("RGB", (across, height + _BAR), _PAPER)
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(_LETTERS)
    for number, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = number * (width + _GAP)
        whole.paste(panel, (left, _BAR))
        pen.text((left + _GAP, 5), caption, fill=_INK, font=font)
    written = io.BytesIO()
    whole.save(written, "PNG", optimize=True)
    return written.getvalue()
