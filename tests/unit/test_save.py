import resource
import signal

import blosc2
import numpy as np
import pytest

from zcat.errors import StorageFailed, Timeout
from zcat.storage.save import Layout, new_array, replaced, save_array


def test_an_array_is_saved_with_its_layout_and_attributes(tmp_path):
    items = np.arange(60, dtype="<i2").reshape(6, 10)
    save_array(
        tmp_path / "a.b2nd", items, Layout((6, 10), items.dtype, (4, 5), (2, 5), {"units": "m", "n": [1, 2]})
    )
    array = blosc2.open(str(tmp_path / "a.b2nd"))
    assert (array.shape, array.dtype, array.chunks, array.blocks) == ((6, 10), items.dtype, (4, 5), (2, 5))
    assert (array.schunk.vlmeta["units"], array.schunk.vlmeta["n"]) == ("m", [1, 2])
    np.testing.assert_array_equal(array[:], items)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)])
def test_arrays_with_one_item_or_none_are_saved(shape, tmp_path):
    save_array(tmp_path / "a.b2nd", np.ones(shape))
    assert blosc2.open(str(tmp_path / "a.b2nd"))[...].tolist() == np.ones(shape).tolist()


def test_a_file_that_fails_half_way_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "a.b2nd"
    path.write_text("old")

    def half():
        with new_array(path, Layout((10,), np.dtype("f8"))) as array:
            array[:5] = 1.0
            raise Timeout("the rest did not come")

    with pytest.raises(Timeout):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StorageFailed):
        save_array(tmp_path / "nowhere" / "a.b2nd", np.ones(3))
    with pytest.raises(StorageFailed, match="nowhere"), replaced(tmp_path / "nowhere" / "a.txt") as partial:
        partial.write_text("x")


def test_a_full_disk_is_called_by_its_name(tmp_path):
    # files of this process may not grow any more, which is as good as a disk without room
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(StorageFailed, match="File too large"):
            save_array(tmp_path / "a.b2nd", np.random.default_rng(1).random(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []
