"""The unmodified client of Caterva2, and ``blosc2.C2Array``, against our server.

They live in an environment of their own, since they need other packages than zcat does. Its Python is named by
``ZCAT_CATERVA2_PYTHON``; ``pip install caterva2 "blosc2[remote]"`` makes one.
"""

import os
import pathlib
import subprocess

import numpy as np
import pytest
from held_datasets import example_roots, held_app, held_array

from zcat.config import HttpConfig
from zcat.http.server import HttpServer

PYTHON = os.environ.get("ZCAT_CATERVA2_PYTHON")
SESSION = pathlib.Path(__file__).with_name("caterva2_session.py")
STEPS = "lists describes slices refusals downloads chunks c2arrays c2arrays_in_ranges"


@pytest.mark.skipif(not PYTHON, reason="ZCAT_CATERVA2_PYTHON does not name a Python that has caterva2")
def test_the_unmodified_client_of_caterva2_works(tmp_path):
    held = example_roots()
    noise = np.random.default_rng(7).integers(0, 256, (4096, 1024)).astype("u1")
    held.datasets["lab"]["noise.b2nd"] = held_array("noise.b2nd", noise, (2048, 1024), (128, 128))
    server = HttpServer(held_app(held), HttpConfig(port=0))
    server.start()
    try:
        command = [PYTHON, SESSION, server.url, tmp_path]
        session = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        server.close()
    assert session.returncode == 0, session.stderr
    assert session.stdout.split() == STEPS.split()
