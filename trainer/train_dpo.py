"""The handbook's name for `minillm dpo`."""

import sys

from minillm.cli import main

if __name__ == "__main__":
    main(["dpo", *sys.argv[1:]])
