"""data/idx.py: files made here, honest and lying, and the real MNIST where it lies beside the checkout."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tinyconvlstm.data.idx import IdxError, read_idx

MNIST = Path(__file__).parents[1].parent / "shared/data/mnist"
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST files beside the checkout")


def idx_bytes(array, shape=None, magic=None):
    """An idx file of a uint8 array; shape and magic may lie."""
    shape = array.shape if shape is None else shape
    magic = 0x800 + len(shape) if magic is None else magic
    header = magic.to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in shape)
    return header + array.tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(3).integers(0, 256, (5, 7, 4), dtype=np.uint8)


@pytest.mark.parametrize("zipped", [False, True])
def test_reads_images_and_labels(tmp_path, images, zipped):
    pack = gzip.compress if zipped else bytes
    path = tmp_path / ("x-idx3-ubyte" + ".gz" * zipped)
    path.write_bytes(pack(idx_bytes(images)))
    got = read_idx(str(path))
    assert got.dtype == np.uint8
    assert got.flags.writeable
    np.testing.assert_array_equal(got, images)
    path.write_bytes(pack(idx_bytes(images[0, :, 1])))
    np.testing.assert_array_equal(read_idx(path), images[0, :, 1])


def test_gzip_is_known_by_its_content_not_its_name(tmp_path, images):
    path = tmp_path / "x.idx"
    path.write_bytes(gzip.compress(idx_bytes(images)))
    np.testing.assert_array_equal(read_idx(path), images)


FAULTS = {
    "empty": (lambda x: b"", "the file is empty"),
    "short magic": (lambda x: idx_bytes(x)[:3], "truncated: 3 bytes"),
    "short header": (lambda x: idx_bytes(x)[:11], "header ends after 11 of 16 bytes"),
    "truncated": (lambda x: idx_bytes(x)[:-1], r"claims shape \(5, 7, 4\), 140 bytes, the file has 139"),
    "wrong magic": (lambda x: idx_bytes(x, magic=0x0D03), "magic number is 3331, expected 2049"),
    "wrong rank": (lambda x: idx_bytes(x, shape=(35, 4)), "magic number is 2050"),
    "not idx": (lambda x: b"\x89PNG" + bytes(50), "magic number is 2303741511"),
    "a size of zero": (lambda x: idx_bytes(x, shape=(5, 0, 4)), r"claims shape \(5, 0, 4\), 0 bytes"),
    "too large": (lambda x: idx_bytes(x, shape=(2**31, 28, 28)), "expected 1 to 1073741824"),
    "size lies upward": (lambda x: idx_bytes(x, shape=(6, 7, 4)), "168 bytes, the file has 140"),
    "size lies downward": (lambda x: idx_bytes(x, shape=(4, 7, 4)), "trailing bytes after the 112"),
    "trailing": (lambda x: idx_bytes(x) + b"\0", "trailing bytes after the 140"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line_with_the_file_and_the_reason(tmp_path, images, fault, zipped):
    make, message = FAULTS[fault]
    path = tmp_path / "f.idx.gz" if zipped else tmp_path / "f.idx"
    path.write_bytes(gzip.compress(make(images)) if zipped else make(images))
    with pytest.raises(IdxError, match=message) as caught:
        read_idx(path)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(IdxError, match=r"nowhere\.idx: No such file"):
        read_idx(tmp_path / "nowhere.idx")
    with pytest.raises(IdxError, match=str(tmp_path.name)):
        read_idx(tmp_path)


def test_damaged_gzip(tmp_path, images):
    path = tmp_path / "x.gz"
    path.write_bytes(idx_bytes(images))
    with pytest.raises(IdxError, match="begins with 00 00, not with gzip's 1f 8b"):
        read_idx(path)
    good = gzip.compress(idx_bytes(images))
    flipped = bytearray(good)
    flipped[-6] ^= 1  # the checksum
    broken = bytearray(good)
    broken[10] ^= 0xFF  # the first block's header
    for bad in (good[:-9], good[:12], good[:2], bytes(flipped), bytes(broken), good + b"rest"):
        path.write_bytes(bad)
        with pytest.raises(IdxError, match=r"x\.gz: damaged or truncated gzip data") as caught:
            read_idx(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_lying_header_or_a_gzip_bomb_costs_no_memory(tmp_path, images, zipped):
    lie = idx_bytes(images, shape=(2**20, 28, 28))  # claims 784 MiB
    bomb = idx_bytes(images) + bytes(200 << 20)
    path = tmp_path / "x"
    for content in (lie, *([bomb] if zipped else [])):
        path.write_bytes(gzip.compress(content, 1) if zipped else content)
        del content
        tracemalloc.start()
        with pytest.raises(IdxError):
            read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20


def test_the_cap_is_the_callers(tmp_path, images):
    path = tmp_path / "x"
    path.write_bytes(idx_bytes(images))
    assert read_idx(path, max_bytes=140).shape == (5, 7, 4)
    with pytest.raises(IdxError, match="140 bytes; expected 1 to 139"):
        read_idx(path, max_bytes=139)


@needs_mnist
def test_real_mnist():
    labels = read_idx(MNIST / "train-labels-idx1-ubyte.gz")
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    images = read_idx(MNIST / "t10k-even-images-idx3-ubyte.gz")
    assert images.shape == (5000, 28, 28)
    assert images.max() == 255
