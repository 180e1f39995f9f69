"""Upload: from the bytes that a browser sends to a picture, or to a reason why not."""

import warnings
from io import BytesIO

from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mtlkit.picture import as_picture

MOST_BYTES = 30 * 2**20
MOST_PIXELS = 25_000_000
"""Of a picture: answers in its own pixels take 9 s and 3 GB for 12 million, on one core, and a file
of some bytes may claim far more."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What is decoded: Pillow hands some other formats to programs."""

TOO_LARGE = f"the file is larger than {MOST_BYTES // 2**20} MB; make it smaller"
_TOO_MANY = f"the picture has more than {MOST_PIXELS // 10**6} million pixels; make it smaller"


class Refused(Exception):
    """What was sent is no picture that can be shown; the message is for whoever sent it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_picture(data: bytes) -> Tensor:
    """The upright picture in the bytes of a file, uint8 ``[3, H, W]``.

    Raises:
        Refused: there is none, it is damaged, or too large.
    """
    if not data:
        raise Refused(400, "the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Refused(413, _TOO_MANY)
                return as_picture(image)
    except Refused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused(413, _TOO_MANY) from None
    except UnidentifiedImageError:
        raise Refused(415, f"this is no picture that is read here ({', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow's decoders raise nearly every kind on broken files
        raise Refused(422, f"the picture cannot be read: {error}") from None
