"""`python -m tinyconvlstm`: the same as the command `tinyconvlstm`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
