"""The handbook's name for `minillm export`."""

import sys

from minillm.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
