"""The handbook's name for `minillm pretrain`."""

import sys

from minillm.cli import main

if __name__ == "__main__":
    main(["pretrain", *sys.argv[1:]])
