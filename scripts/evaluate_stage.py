"""The handbook's name for `minillm evaluate`."""

import sys

from minillm.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
