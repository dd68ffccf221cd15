"""Judges an image by its first and last bytes: is it whole, and does TensorFlow read it right?

The rules come from comparing what TensorFlow 2.21 and 1.15 decode with the true pixels.
"""
import os
import struct
import typing

from data import sources

_TAIL = 1024  # bytes at a file's end in which its end mark must be

# Markers of a JPEG's frame header, and those of the kinds that every TensorFlow reads: baseline,
# extended and progressive. The others are arithmetic-coded, lossless or hierarchical.
_JPEG_FRAMES = set(range(0xffc0, 0xffd0)) - {0xffc4, 0xffc8, 0xffcc}
_COMMON_JPEG_FRAMES = (0xffc0, 0xffc1, 0xffc2)

# The bits of red, green and blue in a 32-bit BMP. TensorFlow takes any others for these.
_BMP_MASKS = struct.pack('<III', 0xff0000, 0xff00, 0xff)


class Doubt(typing.NamedTuple):
    """Why an image may be unusable.

    Attributes:
        reason: str, for the user.
        certain: bool, whether it is unusable. False: decoding it decides.
        flag: int or None, the position of a byte. Its lowest bit must not change the pixels.
    """

    reason: str
    certain: bool
    flag: typing.Optional[int] = None


def doubt(path):
    """Judges a file without decoding it.

    Args:
        path: bytes.

    Returns:
        Doubt, or None.
    """
    reason = sources.irregular(path)
    if reason:
        return Doubt(reason, True)
    try:
        with open(path, 'rb') as file:
            return _file_doubt(file)
    except OSError as error:
        return Doubt('cannot be read (%s)' % error.strerror, True)
    except struct.error:  # a header ends too early
        return Doubt('is cut off', False)


def _file_doubt(file):
    size = file.seek(0, os.SEEK_END)
    if not size:
        return Doubt('is empty', True)
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    file.seek(0)
    start = file.read(8)
    if start.startswith(b'BM'):
        return _bmp_doubt(file, size)
    for first_bytes, end_mark, header_doubt in _FORMATS:
        if start.startswith(first_bytes):
            return header_doubt(file) if end_mark in tail else Doubt('is cut off', False)
    return Doubt('is no JPEG, PNG, GIF or BMP image', False)


def _kind_doubt(kind, certain=False, flag=None):
    """A Doubt about all files of a kind, str."""
    reason = 'is %s, which this TensorFlow does not read right (convert it to PNG)' % kind
    return Doubt(reason, certain, flag)


def _size_doubt(width, height, is_decoded):
    """A Doubt about an image's size, or None. is_decoded: bool, whether TensorFlow decodes it."""
    if is_decoded:
        return None
    reason = 'has %d x %d pixels, a size that TensorFlow does not decode' % (width, height)
    return Doubt(reason, False)


def _jpeg_doubt(file):
    """Follows the segments to the frame header. A preview within a segment is passed over."""
    file.seek(2)
    marker, length = struct.unpack('>HH', file.read(4))
    while marker not in _JPEG_FRAMES:
        if not 0xff00 < marker < 0xffff or length < 2:
            return Doubt('cannot be decoded', False)
        file.seek(length - 2, os.SEEK_CUR)
        marker, length = struct.unpack('>HH', file.read(4))
    bits, height, width, channels = struct.unpack('>BHHB', file.read(6))
    if bits != 8:
        return _kind_doubt('a JPEG with %d-bit channels' % bits)
    if channels not in (1, 3, 4):
        return _kind_doubt('a JPEG with %d channels' % channels)
    if marker not in _COMMON_JPEG_FRAMES:
        return _kind_doubt('a lossless, hierarchical or arithmetic-coded JPEG')
    return _size_doubt(width, height, 0 < width * height * channels < 2 ** 29)


def _png_doubt(file):
    file.seek(16)
    width, height = struct.unpack('>II', file.read(8))
    is_decoded = 0 < width * height < 2 ** 29 and max(width, height) <= 10 ** 6
    return _size_doubt(width, height, is_decoded)


def _gif_doubt(file):
    """Follows the blocks to the first frame.

    If the frame does not fill the canvas, TensorFlow 2.21 returns the frame alone. It makes
    transparent pixels black: a black drawing vanishes.
    """
    file.seek(6)
    canvas_width, canvas_height, flags = struct.unpack('<HHB', file.read(5))
    palette_size = 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0
    file.seek(13 + palette_size)
    transparency = None  # the position of the flag, if it is set
    block = file.read(1)
    while block == b'!':  # an extension: its kind, and sub-blocks until an empty one
        kind, length = struct.unpack('BB', file.read(2))
        while length:
            position = file.tell()
            content = file.read(length)
            if kind == 0xf9 and content and content[0] & 1:
                transparency = position
            length, = struct.unpack('B', file.read(1))
        block = file.read(1)
    left, top, width, height = struct.unpack('<HHHH', file.read(8))
    if left or top or width < canvas_width or height < canvas_height:
        return _kind_doubt('a GIF whose first frame does not fill its canvas', certain=True)
    if transparency:
        return _kind_doubt('a GIF with transparent pixels', flag=transparency)
    return None


def _bmp_doubt(file, size):
    """TensorFlow knows no palette, no compression and one order of the channels.

    Args:
        file: the open file.
        size: int, its bytes.
    """
    file.seek(2)
    declared_size, offset, header_size = struct.unpack('<I4xII', file.read(16))
    if header_size < 40:
        return _kind_doubt('a BMP with an OS/2 header', certain=True)
    width, height, bits, compression = struct.unpack('<ii2xHI', file.read(16))
    if bits not in (8, 24, 32):
        return _kind_doubt('a BMP with %d-bit pixels' % bits, certain=True)
    if compression:
        if bits != 32 or compression not in (3, 6):
            return _kind_doubt('a compressed BMP', certain=True)
        file.seek(54)
        if file.read(12) != _BMP_MASKS:
            return _kind_doubt('a BMP with its colours in another order than blue, green, red',
                               certain=True)
    if bits == 8:
        file.seek(14 + header_size)
        palette = file.read(min(1024, max(0, offset - file.tell())))
        colours = [palette[position:position + 3] for position in range(0, len(palette), 4)]
        if colours != [bytes([grey] * 3) for grey in range(len(colours))]:
            return _kind_doubt('a BMP with a palette', certain=True)
    size_needed = offset + (width * bits // 8 + 3) // 4 * 4 * abs(height)
    if size < max(size_needed, declared_size):
        return Doubt('is cut off', False)
    if size > size_needed:
        return _kind_doubt('a BMP with more bytes than its pixels need')
    if bits != 24:
        return _kind_doubt('a BMP with %d-bit pixels' % bits)
    return _size_doubt(width, height, 0 < width * abs(height) < 2 ** 28)


# The first bytes of a file, its end mark, and what its header tells.
_FORMATS = (
    (b'\xff\xd8\xff', b'\xff\xd9', _jpeg_doubt),
    (b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82', _png_doubt),
    (b'GIF8', b'\x00;', _gif_doubt),
)
