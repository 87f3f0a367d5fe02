"""Disks that are full, and files that may not grow: reads go on without the cache, and nothing wrong is kept."""

import random
import subprocess
import time
from functools import cache

import pytest
from cluster import endpoint_of, eventually, http_of, limited, status_of
from writer import Writer

pytestmark = pytest.mark.timeout(300)

SMALL = "4m"
FILE_BYTES_MAX = 300_000
"""Less than one slotted frame."""


@cache
def no_mounts() -> str | None:
    command = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"no mount namespaces: {error}"
    return f"no mount namespaces: {tried.stderr.strip()}" if tried.returncode else None


def on_small_disk(folder, size=SMALL):
    """A prefix that gives a process a small disk of its own at that place."""
    if no_mounts():
        pytest.skip(str(no_mounts()))
    folder.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size={size} none "{folder}" && exec "$@"'
    return ("unshare", "-m", "sh", "-c", script, "sh")


def play(cluster, tmp_path, prefix):
    """Read through a subscriber whose disk is no good; give the writer."""
    writer = Writer("alpha", tmp_path / "alpha", 1)
    broker = cluster.broker("b1")
    publisher = cluster.publisher("p1", "alpha", writer.folder, [endpoint_of(broker)])
    subscriber = cluster.subscriber("s1", ["alpha"], [endpoint_of(broker)])
    subscriber.prefix = prefix
    cluster.start(broker, publisher, subscriber)
    cluster.read_over_http(subscriber, ["alpha"])
    cluster.checker.wait()
    writer.start()
    time.sleep(8)
    writer.stop()
    cluster.checker.converged_s([writer], within_s=20)
    assert not cluster.checker.failures(), cluster.checker.failures()[:3]
    return writer


def test_a_full_cache_disk_fails_no_read(cluster, tmp_path):
    play(cluster, tmp_path, on_small_disk(tmp_path / "cache-s1"))
    assert cluster.services["s1"].terminate() < 10


def test_cache_files_that_may_not_grow_fail_no_read(cluster, tmp_path):
    play(cluster, tmp_path, limited("FSIZE", FILE_BYTES_MAX))


def test_a_publisher_whose_state_disk_is_full_serves_what_needs_no_copy(cluster, tmp_path):
    """Plain files are compressed into its state folder; Blosc2 files are sent as they lie there."""
    writer = Writer("alpha", tmp_path / "alpha", 1)
    (writer.folder / "plain.bin").write_bytes(random.Random(1).randbytes(2_000_000))
    broker = cluster.broker("b1")
    prefix = on_small_disk(tmp_path / "state-p1", "256k")
    publisher = cluster.publisher(
        "p1", "alpha", writer.folder, [endpoint_of(broker)], ["--set", "reserve_bytes=0"]
    )
    publisher.prefix = (
        *prefix[:-2],
        prefix[-2].replace("&& exec", f"&& {_fill(tmp_path / 'state-p1')} exec"),
        "sh",
    )
    subscriber = cluster.subscriber("s1", ["alpha"], [endpoint_of(broker)])
    cluster.start(broker, publisher, subscriber)
    cluster.read_over_http(subscriber, ["alpha"])
    cluster.checker.wait()
    writer.start()
    eventually(lambda: cluster.checker.clients["reader-s1"].count > 100)
    writer.stop()
    assert "plain.bin" in cluster.get(subscriber, "/api/list/alpha")
    status = status_of(f"{http_of(subscriber)}/api/download/alpha/plain.bin")
    assert status in (200, 507), (status, publisher.log.read_text()[-1000:])
    assert not cluster.checker.failures(), cluster.checker.failures()[:3]
    assert publisher.is_alive()


def _fill(folder) -> str:
    """Leave a few pages, which the owner key and the counter of lives need."""
    return f'head -c 200000 /dev/zero > "{folder}/filler";'
