"""The handbook's name for `minillm mix`."""

import sys

from minillm.cli import main

if __name__ == "__main__":
    main(["mix", *sys.argv[1:]])
