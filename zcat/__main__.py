"""``python -m zcat`` is the command ``zcat``."""

import sys

from zcat.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
