"""The handbook's name for `minillm tokenizer`."""

import sys

from minillm.cli import main

if __name__ == "__main__":
    main(["tokenizer", *sys.argv[1:]])
