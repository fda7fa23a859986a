"""``python -m chatstream_trio``."""

import sys

from chatstream_trio.cli import main

if __name__ == "__main__":
    sys.exit(main())
