"""The handbook's name for `minillm sft`."""

import sys

from minillm.cli import main

if __name__ == "__main__":
    main(["sft", *sys.argv[1:]])
