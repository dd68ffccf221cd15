"""Every kind of image file is read as Pillow reads it, or refused before a run."""
import io
import os
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf

from data import images

TF1 = tf.__version__.startswith('1.')

# 37 x 29 pixels: the rows of a BMP are padded.
ROWS, COLUMNS = np.mgrid[:29, :37]
PIXELS = np.stack([6 * COLUMNS, 8 * ROWS, 3 * (ROWS + COLUMNS) + 20], -1).astype(np.uint8)
RGB = PIL.Image.fromarray(PIXELS)
RGBA = PIL.Image.fromarray(np.dstack([PIXELS, 8 * ROWS]).astype(np.uint8))
GREY = PIL.Image.fromarray(PIXELS[..., 0])
PALETTE = RGB.quantize(60)
USED_COLOUR = int(np.array(PALETTE)[3, 3])
UNUSED_COLOUR = 61
SIXTEEN_BITS = PIXELS[..., 0].astype(np.uint16) * 256 + 77


def encoded(kind, image, **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def changed(content, position, new):
    """The content with other bytes at a position."""
    return content[:position] + new + content[position + len(new):]


def bmp(bits, body, compression=0, between=b'', height=29, behind=b''):
    """A BMP of the size of PIXELS.

    Args:
        bits: int, per pixel.
        body: bytes of the pixels.
        compression: int.
        between: bytes between header and pixels.
        height: int, negative if the top row comes first.
        behind: bytes behind the pixels.
    """
    offset = 54 + len(between)
    size = offset + len(body) + len(behind)
    header = struct.pack('<IiiHHIIiiII', 40, 37, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return (b'BM' + struct.pack('<IHHI', size, 0, 0, offset) + header + between + body + behind)


def padded(rows):
    """The bytes of rows, each filled up to a multiple of four."""
    lines = [row.tobytes() for row in rows]
    return b''.join(line + bytes(-len(line) % 4) for line in lines)


def png_of_size(width, height):
    """A PNG whose header has this size."""
    png = encoded('PNG', RGB)
    header = b'IHDR' + struct.pack('>II', width, height) + png[24:29]
    return changed(png, 12, header + struct.pack('>I', zlib.crc32(header)))


BGR = PIXELS[::-1, :, ::-1]  # as a BMP has rows and colours
BGRA = padded(np.dstack([BGR, BGR[..., 0]]))
FIVE_BITS = BGR.astype(np.uint16) >> 3
OS2_HEADER = b'BM' + struct.pack('<IHHIIHHHH', 3274, 0, 0, 26, 12, 37, 29, 1, 24)
JPEG = encoded('JPEG', RGB, quality=97)
FRAME = JPEG.index(b'\xff\xc0\0')  # marker, length, bits, height and width
PREVIEW = b'Exif\0\0' + changed(JPEG, FRAME + 1, b'\xc3') + bytes(9000)

READ = {
    'BMP': encoded('BMP', RGB),
    'BMP, top row first': bmp(24, padded(BGR[::-1]), height=-29),
    'PNG': encoded('PNG', RGB),
    'PNG with alpha': encoded('PNG', RGBA),
    'PNG, grey': encoded('PNG', GREY),
    'PNG, grey with alpha': encoded('PNG', RGBA.convert('LA')),
    'PNG, 16 bits': encoded('PNG', PIL.Image.fromarray(SIXTEEN_BITS)),
    'PNG with palette': encoded('PNG', PALETTE),
    'PNG with palette and alpha': encoded('PNG', PALETTE, transparency=USED_COLOUR),
    'PNG, 1 bit': encoded('PNG', RGB.convert('1')),
    'JPEG': JPEG,
    'JPEG, grey': encoded('JPEG', GREY, quality=97),
    'JPEG, CMYK': encoded('JPEG', RGB.convert('CMYK'), quality=97),
    'JPEG, progressive': encoded('JPEG', RGB, quality=97, progressive=True),
    'JPEG with lossless preview': encoded('JPEG', RGB, quality=97, exif=PREVIEW),
    'GIF': encoded('GIF', PALETTE),
    'GIF with unused transparency': encoded('GIF', PALETTE, transparency=UNUSED_COLOUR),
    'GIF, animated': encoded('GIF', PALETTE, save_all=True, append_images=[GREY]),
}

REFUSED = {  # what is refused, and how it is called
    'BMP, OS/2': (OS2_HEADER + padded(BGR), 'a BMP with an OS/2 header'),
    'BMP, 32 bits, other order': (
        bmp(32, BGRA, 3, struct.pack('<III', 0xff, 0xff00, 0xff0000)),
        'a BMP with its colours in another order than blue, green, red'),
    'BMP, 16 bits': (bmp(16, padded(FIVE_BITS[..., 0])), 'a BMP with 16-bit pixels'),
    'BMP with palette': (encoded('BMP', PALETTE), 'a BMP with a palette'),
    'BMP, run-length': (
        bmp(8, b'\x25\7\0\0' * 29 + b'\0\1', 1, encoded('BMP', GREY)[54:1078]),
        'a compressed BMP'),
    'BMP, 1 bit': (encoded('BMP', RGB.convert('1')), 'a BMP with 1-bit pixels'),
    'JPEG, 2 channels': (changed(JPEG, FRAME + 9, b'\2'), 'a JPEG with 2 channels'),
    'JPEG, 12 bits': (changed(JPEG, FRAME + 4, b'\x0c'), 'a JPEG with 12-bit channels'),
    'JPEG, lossless': (changed(JPEG, FRAME + 1, b'\xc3'),
                       'a lossless, hierarchical or arithmetic-coded JPEG'),
    'GIF, larger canvas': (changed(encoded('GIF', PALETTE), 6, struct.pack('<HH', 38, 29)),
                           'a GIF whose first frame does not fill its canvas'),
}

READ_BY_TF1 = {
    'BMP, bytes behind': (bmp(24, padded(BGR), behind=b'\0\0'),
                          'a BMP with more bytes than its pixels need'),
    'GIF, transparent': (encoded('GIF', PALETTE, transparency=USED_COLOUR),
                         'a GIF with transparent pixels'),
}

READ_BY_TF2 = {
    'BMP, 32 bits': (encoded('BMP', RGBA), 'a BMP with 32-bit pixels'),
    'BMP, 32 bits, common order': (
        bmp(32, BGRA, 3, struct.pack('<III', 0xff0000, 0xff00, 0xff)), 'a BMP with 32-bit pixels'),
    'BMP, grey': (encoded('BMP', GREY), 'a BMP with 8-bit pixels'),
}

if TF1:
    REFUSED.update(READ_BY_TF2)
    READ.update({name: content for name, (content, _) in READ_BY_TF1.items()})
else:
    REFUSED.update(READ_BY_TF1)
    READ.update({name: content for name, (content, _) in READ_BY_TF2.items()})


def broken(folder, content):
    """The reason of `images.broken`, or None."""
    path = folder / 'image'
    path.write_bytes(content)
    return images.broken([os.fsencode(str(path))]).get(os.fsencode(str(path)))


@pytest.mark.parametrize('kind', sorted(READ))
def test_what_is_accepted_is_read_as_pillow_does(kind, tmp_path):
    assert broken(tmp_path, READ[kind]) is None
    with tf.Graph().as_default(), tf.Session() as session:
        actual = session.run(tf.image.decode_image(READ[kind], 3, expand_animations=False))
    expected = np.array(PIL.Image.open(str(tmp_path / 'image')).convert('RGB'))
    if kind == 'PNG, 16 bits':  # of which Pillow does not take the high bytes
        expected = np.dstack([SIXTEEN_BITS >> 8] * 3)
    np.testing.assert_allclose(actual, expected, atol=10 if kind.startswith('JPEG') else 0)


@pytest.mark.parametrize('kind', sorted(REFUSED))
def test_what_is_misread_is_refused(kind, tmp_path):
    content, name = REFUSED[kind]
    assert broken(tmp_path, content) == (
        'is %s, which this TensorFlow does not read right (convert it to PNG)' % name)


@pytest.mark.parametrize('content, size', [
    (png_of_size(26000, 26000), '26000 x 26000'),
    (png_of_size(10 ** 6 + 1, 1), '1000001 x 1'),
    (png_of_size(0, 29), '0 x 29'),
    (changed(JPEG, FRAME + 5, struct.pack('>HH', 14000, 14000)), '14000 x 14000'),
    (bmp(24, b'', height=0), '37 x 0')])
def test_sizes_that_cannot_be_decoded(content, size, tmp_path):
    assert broken(tmp_path, content) == (
        'has %s pixels, a size that TensorFlow does not decode' % size)
