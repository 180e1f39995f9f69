import struct
import zlib

import numpy as np
import pytest
from dataset_files import pixels, save, scene, truncate
from mtlkit_datasets._images import check_image, in_parallel, read_image, read_mask
from PIL import Image, ImageOps

from mtlkit import DataError
from mtlkit.picture import as_picture

RED = np.full((4, 6, 3), (200, 30, 40), dtype=np.uint8)


def test_a_photograph_is_read_as_rgb_bytes(tmp_path):
    path = save(tmp_path / "a.png", pixels())
    assert read_image(path).pixels.dtype == np.uint8
    np.testing.assert_array_equal(read_image(path).pixels, pixels())


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("png", mode) for mode in ("RGB", "P", "RGBA", "L", "1", "LA")),
        *(("tif", mode) for mode in ("RGB", "P", "RGBA", "L", "1", "LA", "CMYK", "YCbCr")),
        *(("jpg", mode) for mode in ("RGB", "L", "CMYK", "YCbCr")),
    ],
)
def test_every_colour_mode_becomes_the_rgb_it_stands_for(tmp_path, mode, suffix):
    image = Image.fromarray(RED).convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    got = read_image(tmp_path / f"a.{suffix}").pixels.astype(int)
    assert got.shape == (4, 6, 3)
    expected = np.array(image.convert("RGB")).astype(int)
    assert abs(got - expected).max() <= 6
    assert check_image(tmp_path / f"a.{suffix}") == (4, 6)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    wide = np.array([[0, 200, 128 * 257, 65535]], dtype=np.uint16)
    save(tmp_path / "a.png", wide)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels[0, :, 0], [0, 1, 128, 255])
    Image.fromarray(wide.astype(np.int32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels[0, :, 1], [0, 1, 128, 255])


def test_transparency_lies_on_white(tmp_path):
    layered = np.zeros((2, 2, 4), dtype=np.uint8)
    layered[0, 0] = (10, 20, 30, 255)
    got = read_image(save(tmp_path / "a.png", layered)).pixels
    assert got[0, 0].tolist() == [10, 20, 30]
    assert got[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", [*range(9), 262])
def test_exif_orientation_is_undone(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", pixels(), exif=exif)
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path).pixels, expected)
    assert check_image(path) == expected.shape[:2]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_broken_exif_is_no_reason_to_refuse_a_picture(tmp_path):
    path = save(tmp_path / "a.jpg", pixels(), exif=b"Exif\0\0II*\0\xff\xff\xff\x7fnonsense")
    assert read_image(path).pixels.shape == pixels().shape


@pytest.mark.parametrize("read", [read_image, check_image])
def test_a_truncated_jpeg_is_named(tmp_path, read):
    path = save(tmp_path / "a.jpg", pixels(height=200, width=300), quality=95)
    truncate(path)
    with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded \(.*truncated"):
        read(path)


@pytest.mark.parametrize("read", [read_image, check_image, read_mask])
def test_a_file_that_is_no_picture_is_named(tmp_path, read):
    (tmp_path / "a.jpg").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded \(not a picture"):
        read(tmp_path / "a.jpg")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.jpg: no such file"):
        read_image(tmp_path / "a.jpg")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((3, 3), dtype=np.float32)).save(tmp_path / "a.tif")
    for read in (read_image, check_image):
        with pytest.raises(DataError, match="floating-point pixels; save it with"):
            read(tmp_path / "a.tif")


def png_of(side, path):
    """A file of some bytes that claims to be a picture of that side."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", b""), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("read", [read_image, check_image, read_mask])
@pytest.mark.parametrize("side", [10_000, 30_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_an_error_and_not_a_warning(tmp_path, side, read):
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded \(.*decompression bomb"):
        read(png_of(side, tmp_path / "a.png"))


def test_a_picture_without_pixels_is_an_error(tmp_path):
    for read in (read_image, check_image, read_mask):
        with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
            read(png_of(0, tmp_path / "a.png"))


def test_what_pillow_would_hand_to_another_program_is_not_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded \(not a picture in a known"):
        read_image(tmp_path / "a.png")


def test_a_palette_mask_keeps_its_indices(tmp_path):
    ids = np.array([[0, 1, 2], [2, 1, 255]], dtype=np.uint8)
    image = Image.fromarray(ids)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] + [7] * 759)
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.mode == "P"
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids)


def test_masks_of_other_depths_of_equal_channels_and_with_alpha_are_class_ids(tmp_path):
    ids = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    save(tmp_path / "bit.png", ids.astype(bool))
    save(tmp_path / "wide.png", ids.astype(np.uint16))
    save(tmp_path / "rgb.png", np.stack([ids] * 3, axis=-1))
    alpha = np.full_like(ids, 255)
    save(tmp_path / "la.png", np.stack([ids, alpha], axis=-1))
    save(tmp_path / "rgba.png", np.stack([ids, ids, ids, alpha], axis=-1))
    for name in ("bit", "wide", "rgb", "la", "rgba"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), ids)


def test_a_colour_mask_and_ids_beyond_a_byte_are_refused(tmp_path):
    save(tmp_path / "colour.png", RED)
    with pytest.raises(DataError, match=r"colour\.png: a colour picture; a mask holds one class"):
        read_mask(tmp_path / "colour.png")
    Image.new("CMYK", (4, 3)).save(tmp_path / "ink.tif")
    with pytest.raises(DataError, match=r"ink\.tif: a colour picture"):
        read_mask(tmp_path / "ink.tif")
    save(tmp_path / "wide.png", np.array([[3, 300]], dtype=np.uint16))
    with pytest.raises(DataError, match=r"wide\.png: holds 3 to 300; class ids are whole numbers"):
        read_mask(tmp_path / "wide.png")


BOX = (101, 83, 613, 407)
STEPS = [
    ((480, 640), 1),
    ((241, 320), 1),
    ((240, 320), 2),
    ((121, 9), 2),
    ((60, 80), 8),
    ((1, 1), 8),
]


@pytest.mark.parametrize(("wanted", "step"), STEPS)
def test_a_large_jpeg_is_decoded_no_larger_than_wanted(tmp_path, wanted, step):
    path = save(tmp_path / "a.jpg", scene(480, 640, BOX), quality=95)
    photo = read_image(path, wanted)
    assert (photo.step, photo.size) == (step, (480, 640))
    assert photo.pixels.shape == (480 // step, 640 // step, 3)


def test_only_a_jpeg_can_be_decoded_smaller(tmp_path):
    path = save(tmp_path / "a.png", scene(480, 640, BOX))
    assert read_image(path, (60, 80)).step == 1


@pytest.mark.parametrize("size", [(480, 640), (477, 635)])
@pytest.mark.parametrize("step", [2, 4, 8])
def test_a_smaller_decoding_is_close_to_the_mean_of_the_pixels_it_stands_for(tmp_path, size, step):
    path = save(tmp_path / "a.jpg", scene(*size, BOX), quality=95)
    height, width = size
    photo = read_image(path, (height // step, width // step))
    assert photo.pixels.shape[:2] == (-(-height // step), -(-width // step))
    missing = ((0, -height % step), (0, -width % step), (0, 0))
    whole = np.pad(read_image(path).pixels.astype(float), missing, mode="edge")
    rows, columns = photo.pixels.shape[:2]
    means = whole.reshape(rows, step, columns, step, 3).mean((1, 3))
    error = abs(photo.pixels - means)
    assert error.mean() <= 1
    assert error.max() <= 8


@pytest.mark.parametrize("size", [(480, 640), (477, 635)])
@pytest.mark.parametrize("step", [2, 4, 8])
def test_a_mask_follows_a_smaller_decoding(tmp_path, size, step):
    picture = scene(*size, BOX)
    photo = read_image(save(tmp_path / "a.jpg", picture, quality=95), [n // step for n in size])
    bright = picture[..., 0].astype(float) - 60 * np.arange(size[1]) / size[1] > 95
    shrunk = photo.mask(bright.astype(np.uint8))
    assert shrunk.shape == photo.pixels.shape[:2]
    for axis in (0, 1):
        found = np.flatnonzero(shrunk.any(1 - axis))
        edges = np.array([found[0], found[-1] + 1])
        np.testing.assert_allclose(edges, np.array(BOX)[1 - axis :: 2] / step, atol=0.5 + 1 / step)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(480, 640), (476, 636), (477, 635)])
def test_a_smaller_decoding_is_turned_upright_and_fits_its_mask(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.jpg", scene(*size, BOX), quality=95, exif=exif)
    whole = read_image(path)
    wanted = [n // 4 for n in whole.size]
    photo = read_image(path, wanted)
    assert photo.size == whole.size == whole.pixels.shape[:2]
    assert all(n >= least for n, least in zip(photo.pixels.shape, wanted, strict=False))
    assert photo.step == (4 if orientation == 1 or not size[0] % 4 else 1)
    near = np.stack([photo.mask(whole.pixels[..., i]) for i in range(3)], axis=-1)
    assert abs(photo.pixels - near.astype(float)).mean() < 3


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_smaller_decoding_of_other_modes_becomes_rgb(tmp_path, mode):
    Image.fromarray(scene(480, 640, BOX)).convert(mode).save(tmp_path / "a.jpg", quality=95)
    photo = read_image(tmp_path / "a.jpg", (100, 100))
    whole = read_image(tmp_path / "a.jpg").pixels[2::4, 2::4].astype(float)
    assert photo.pixels.shape == (120, 160, 3)
    assert abs(photo.pixels - whole).mean() < 4


def test_a_truncated_jpeg_is_named_in_a_smaller_decoding_too(tmp_path):
    path = save(tmp_path / "a.jpg", pixels(height=200, width=300), quality=95)
    truncate(path)
    with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded \(.*truncated"):
        read_image(path, (20, 20))


def test_results_of_checks_come_in_order():
    assert in_parallel(lambda item: item * 2, range(50)) == [2 * i for i in range(50)]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "1", "I;16", "CMYK"])
def test_prediction_sees_the_pixels_that_training_saw(tmp_path, mode):
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    picture = Image.fromarray(pixels())
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    if picture.mode in ("RGBA", "LA"):
        picture.putalpha(100)
    picture.save(file)
    with Image.open(file) as opened:
        seen = as_picture(opened).permute(1, 2, 0).numpy()
    assert (seen == read_image(file).pixels).all()
    assert seen.std() > 1
