import os
import socket
import stat

import pytest

from zcat.net.nearby import host_mark, private_endpoint, ways

OWNER, TCP = "a" * 32, "tcp://10.0.0.1:5"


@pytest.fixture
def near(tmp_path):
    """An endpoint where somebody listens."""
    endpoint = private_endpoint(str(tmp_path / "run"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(endpoint.removeprefix("ipc://"))
        listener.listen()
        yield endpoint


def test_a_host_is_named_in_another_way_to_those_who_know_another_key():
    assert host_mark(OWNER) == host_mark(OWNER)
    assert host_mark(OWNER) != host_mark("b" * 32)


def test_a_socket_of_this_host_is_tried_first(near):
    assert ways((TCP, near), host_mark(OWNER), OWNER) == (near, TCP)


def test_a_socket_of_another_host_is_left_out(near):
    for mark in ("0" * 16, host_mark("b" * 32)):
        assert ways((TCP, near), mark, OWNER) == (TCP,)


def test_a_socket_at_which_nobody_listens_is_left_out(tmp_path, near):
    missing = f"ipc://{tmp_path}/nothing"
    assert ways((TCP, missing), host_mark(OWNER), OWNER) == (TCP,)
    os.unlink(near.removeprefix("ipc://"))
    assert ways((TCP, near), host_mark(OWNER), OWNER) == (TCP,)


def test_endpoints_of_a_claim_that_names_no_host_stay_as_they_are():
    assert ways(("ipc:///x", TCP), None, OWNER) == ("ipc:///x", TCP)


def test_only_this_user_may_enter_the_folder_and_what_was_in_it_is_gone(tmp_path):
    folder = tmp_path / "run"
    private_endpoint(str(folder))
    (folder / "left").write_text("x")
    assert private_endpoint(str(folder)) == f"ipc://{folder}/socket"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list(folder.iterdir())


def test_a_path_that_is_too_long_is_not_used(tmp_path):
    assert private_endpoint(str(tmp_path / ("x" * 100))) is None
    assert private_endpoint(str(tmp_path / "no" / "such" / "folder")) is None
