"""The reading commands, in process, against the services of ``zcat up`` in the same process."""

import contextlib
import csv
import json

import blosc2
import numpy as np
import pytest

import zcat
from zcat.cli import exits, up
from zcat.cli.main import main, make_parser


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    arguments = ["up", "--http", "127.0.0.1:0", "--state", str(tmp_path_factory.mktemp("state"))]
    with contextlib.ExitStack() as stack:
        yield up.start(stack, make_parser().parse_args(arguments)).http


@pytest.fixture
def run(url, capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder; return what it printed, after it ended as expected."""
    monkeypatch.setenv("ZCAT_URL", url)
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=exits.OK):
        found = main(list(arguments))
        out, err = capsys.readouterr()
        assert found == status, err
        assert err.count("\n") == (0 if status == exits.OK else 1), err
        return out if status == exits.OK else err

    return run


@pytest.fixture
def dataset(url):
    with zcat.connect(url) as client:
        yield lambda path: client[f"example/{path}"]


def test_roots_are_listed(run):
    (row,) = json.loads(run("roots", "--json"))
    assert (row["name"], row["state"], row["followed"], row["datasets"]) == ("example", "live", True, 7)
    head, line = run("roots").splitlines()
    assert head.split()[0] == "NAME"
    assert line.split()[:2] == ["example", "live"]


def test_ls_lists_one_level_and_on_demand_all(run):
    names = run("ls", "example").split()
    assert "about/" in names
    assert "waves.b2nd" in names
    assert "about/stations.txt" in run("ls", "-r", "example").split()
    assert run("ls", "example/about").split() == ["stations.txt"]
    assert run("ls", "example/waves.b2nd").split() == ["waves.b2nd"]


def test_a_long_listing_has_a_line_for_each_and_json_the_same(run):
    lines = run("ls", "-l", "example").splitlines()
    rows = json.loads(run("ls", "--json", "example"))
    assert len(lines) == 1 + len(rows)
    (waves,) = [row for row in rows if row["path"] == "waves.b2nd"]
    assert (waves["kind"], waves["shape"], waves["dtype"]) == ("array", [32, 128, 128], "float32")


def test_a_tree_is_drawn(run):
    assert "└── stations.txt" in run("tree", "example")


def test_a_tree_is_told_to_programs(run):
    about = next(node for node in json.loads(run("tree", "--json", "example")) if node["name"] == "about")
    assert [child["name"] for child in about["children"]] == ["stations.txt"]


def test_info_tells_of_datasets_folders_and_roots(run):
    assert "32 x 128 x 128" in run("info", "example/waves.b2nd")
    told = json.loads(run("info", "--json", "example/waves.b2nd"))
    assert told["attributes"]["units"] == "cm"
    assert json.loads(run("info", "--json", "example"))["kind"] == "root"
    assert json.loads(run("info", "--json", "example/about"))["datasets"] == 1


def test_a_part_is_shown_as_numpy_shows_it(run, dataset):
    waves = dataset("waves.b2nd")
    shown = run("show", "example/waves.b2nd[3, :10, ::32]")
    assert shown == np.array2string(waves[3, :10, ::32], max_line_width=100) + "\n"
    assert run("show", "example/waves.b2nd") == np.array2string(waves[...], max_line_width=100) + "\n"
    assert run("show", "example/waves.b2nd[0, 0, 0]") == str(waves[0, 0, 0]) + "\n"
    assert run("show", "--field", "height", "example/stations.b2nd[:3]").startswith("[")


def test_a_part_is_shown_small(run, dataset):
    waves = dataset("waves.b2nd")
    wanted = waves[3].reshape(4, 32, 2, 64).max((1, 3))
    shown = run("show", "example/waves.b2nd[3]", "--fit", "4x2", "--reduce", "max")
    assert shown == np.array2string(wanted, max_line_width=100) + "\n"
    assert run("show", "example/stations.b2nd", "--field", "height", "--fit", "1").startswith("[")
    assert run("show", "example/waves.b2nd", "--fit", "x", status=exits.REFUSED).startswith("zcat: bad-request: ")
    assert run("show", "example/README.md", "--fit", "3", status=exits.REFUSED).startswith("zcat: bad-request: ")


def test_a_text_is_shown_as_text(run, dataset):
    text = dataset("about/stations.txt").text()
    assert run("show", "example/about/stations.txt") == text
    assert run("show", "example/about/stations.txt[2:10]") == text[2:10] + "\n"


def test_a_part_of_a_text_is_shown_and_exported(run, dataset, tmp_path):
    words = dataset("about/stations.txt").read()
    for inside, part in (("[]", words), ("[...]", words), ("[3:20]", words[3:20]), ("[20:3]", b"")):
        shown = run("show", f"example/about/stations.txt{inside}")
        assert shown == part.decode().removesuffix("\n") + "\n"
        run("export", f"example/about/stations.txt{inside}", "part.raw")
        assert (tmp_path / "part.raw").read_bytes() == part


def test_what_is_not_there_or_does_not_fit_is_one_line_and_a_status(run):
    assert run("ls", "nothing", status=exits.MISSING).startswith("zcat: root-unknown: ")
    for command in ("ls", "info", "show", "get"):
        assert run(command, "example/nothing", status=exits.MISSING).startswith("zcat: dataset-unknown: ")
    assert run("show", "example/waves.b2nd[99]", status=exits.REFUSED).startswith("zcat: bad-selection: ")
    assert run("show", "example/../x", status=exits.REFUSED).startswith("zcat: bad-name: ")
    assert run("show", "--field", "x", "example/stations.b2nd", status=exits.REFUSED).startswith("zcat: bad-sel")
    assert run("show", "--field", "x", "example/README.md", status=exits.REFUSED).startswith("zcat: bad-request: ")
    assert run("get", "example/waves.b2nd", "no/where", status=exits.REFUSED).startswith("zcat: bad-request: ")


def test_a_dataset_is_copied_under_its_name_or_another(run, dataset, tmp_path):
    run("get", "example/waves.b2nd")
    run("get", "example/waves.b2nd", "other.b2nd")
    for name in ("waves.b2nd", "other.b2nd"):
        np.testing.assert_array_equal(blosc2.open(str(tmp_path / name))[...], dataset("waves.b2nd")[...])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.b2nd", "waves.b2nd"]


def test_a_copy_that_was_interrupted_goes_on(run, dataset, tmp_path):
    run("get", "example/waves.b2nd", "whole.b2nd")
    whole = (tmp_path / "whole.b2nd").read_bytes()

    class Interrupted(Exception):
        pass

    def interrupt(done, total):
        raise Interrupted

    with pytest.raises(Interrupted):
        dataset("waves.b2nd").download(tmp_path / "waves.b2nd", progress=interrupt)
    assert (tmp_path / "waves.b2nd.part").exists()
    run("get", "example/waves.b2nd")
    assert (tmp_path / "waves.b2nd").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["waves.b2nd", "whole.b2nd"]


def test_a_root_and_a_folder_are_copied_with_all_in_them(run, dataset, tmp_path):
    run("get", "example")
    copied = sorted(str(path.relative_to(tmp_path / "example")) for path in (tmp_path / "example").rglob("*.*"))
    assert copied == run("ls", "-r", "example").split()
    run("get", "example/about", "here")
    assert (tmp_path / "here" / "stations.txt").read_text() == dataset("about/stations.txt").text()


def test_export_writes_what_other_programs_read(run, dataset, tmp_path):
    waves = dataset("waves.b2nd")
    run("export", "example/waves.b2nd", "a.b2nd")
    array = blosc2.open(str(tmp_path / "a.b2nd"))
    assert (array.chunks, array.blocks, array.schunk.vlmeta["units"]) == (waves.chunks, waves.blocks, "cm")
    np.testing.assert_array_equal(array[...], waves[...])
    run("export", "example/waves.b2nd[::-3, 5]", "b.b2nd")
    np.testing.assert_array_equal(blosc2.open(str(tmp_path / "b.b2nd"))[...], waves[::-3, 5])
    run("export", "example/plasma.b2nd[0]", "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), dataset("plasma.b2nd")[0])
    run("export", "example/stations.b2nd", "stations.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "stations.npy"), dataset("stations.b2nd")[...])
    run("export", "example/tide.b2nd", "a.raw")
    assert (tmp_path / "a.raw").read_bytes() == dataset("tide.b2nd")[...].tobytes()
    run("export", "example/README.md", "readme.raw")
    assert (tmp_path / "readme.raw").read_bytes() == dataset("README.md").read()


def test_export_writes_tables_and_planes_as_csv(run, dataset, tmp_path):
    def rows(name):
        return list(csv.reader((tmp_path / name).read_text().splitlines()))

    run("export", "example/stations.b2nd[:4]", "table.csv")
    head, first, *_ = rows("table.csv")
    assert head == ["name", "latitude", "longitude", "height", "is_manned"]
    assert first[0] == "ST0000"
    run("export", "example/waves.b2nd[0, :3]", "plane.csv")
    np.testing.assert_array_equal(np.array(rows("plane.csv"), "f4"), dataset("waves.b2nd")[0, :3])
    run("export", "example/tide.b2nd[:5]", "line.csv")
    np.testing.assert_array_equal(np.array(rows("line.csv"), "f4")[:, 0], dataset("tide.b2nd")[:5])


def test_export_refuses_what_it_cannot_write_and_leaves_nothing(run, tmp_path):
    for address, local in (
        ("example/waves.b2nd", "a.csv"),
        ("example/waves.b2nd", "a.xlsx"),
        ("example/README.md", "a.npy"),
        ("example/waves.b2nd", "no/where.npy"),
    ):
        run("export", address, local, status=exits.REFUSED)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_not_replaced(run, tmp_path):
    (tmp_path / "pipe.npy").symlink_to("/dev/null")
    run("export", "example/waves.b2nd", "pipe.npy", status=exits.REFUSED)
    run("get", "example/waves.b2nd", "pipe.npy", status=exits.REFUSED)
    assert (tmp_path / "pipe.npy").is_char_device()


def test_a_root_is_forgotten_and_followed_again(run):
    assert run("unfollow", "example") == "no longer following example\n"
    assert "zcat follow example" in run("ls", "example", status=exits.MISSING)
    assert json.loads(run("roots", "--json"))[0]["followed"] is False
    assert "7 datasets" in run("follow", "example")
    assert json.loads(run("unfollow", "example", "--json")) == {"name": "example", "followed": False}
    assert json.loads(run("follow", "example", "--json"))["datasets"] == 7
    assert run("follow", "nothing", status=exits.MISSING).startswith("zcat: root-unknown: ")


def test_check_finds_subscriber_and_broker(url, capsys, tmp_path):
    main(["check", "--json", "--url", url, "--state", str(tmp_path)])
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["subscriber"]["is_good"], findings["subscriber"]
    assert findings["broker"]["is_good"], findings["broker"]
    assert " ms" in findings["broker"]["found"]
