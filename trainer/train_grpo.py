"""The handbook's name for `minillm grpo`."""

import sys

from minillm.cli import main

if __name__ == "__main__":
    main(["grpo", *sys.argv[1:]])
