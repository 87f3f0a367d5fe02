import hashlib

import blosc2
import numpy as np
import pytest

from zcat.cli import example
from zcat.names import check_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return example.make_example(tmp_path_factory.mktemp("state") / "example")


def files(folder):
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def test_there_is_one_of_each_kind(folder):
    arrays = {name: blosc2.open(str(path)) for name, path in files(folder).items() if name.endswith(".b2nd")}
    assert sorted(array.ndim for array in arrays.values() if array.dtype.fields is None) == [1, 2, 3, 4]
    assert any(array.dtype.fields for array in arrays.values())
    colours = arrays["plasma.b2nd"]
    assert (colours.dtype, colours.shape[-1]) == (np.uint8, 3)
    for array in arrays.values():
        assert {"units", "long_name"} <= set(array.schunk.vlmeta)
        assert array.schunk.nchunks > 1


def test_every_name_may_be_shared_and_the_readme_explains_each(folder):
    readme = (folder / "README.md").read_text()
    for name in files(folder):
        check_path(name)
        assert name == "README.md" or f"`{name}`" in readme


def test_there_is_something_to_see_in_each_and_nothing_that_is_no_number(folder):
    for name, path in files(folder).items():
        if name.endswith(".b2nd"):
            items = blosc2.open(str(path))[...]
            columns = [items[field] for field in items.dtype.names] if items.dtype.names else [items]
            for column in columns:
                assert len(np.unique(column)) > 1
                assert column.dtype.kind == "S" or np.isfinite(column).all()


def test_the_formulas_give_the_same_each_time():
    for make in (example.mandelbrot, example.waves, example.plasma, example.tide, example.stations):
        first, second = (hashlib.sha256(make().tobytes()).digest() for _ in range(2))
        assert first == second


def test_what_is_there_is_left_alone_and_what_lacks_is_made_again(folder):
    before = {name: path.stat().st_mtime_ns for name, path in files(folder).items()}
    (folder / "README.md").unlink()
    example.make_example(folder)
    after = {name: path.stat().st_mtime_ns for name, path in files(folder).items()}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"README.md"}
