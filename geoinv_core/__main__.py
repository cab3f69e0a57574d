"""`python -m geoinv_core …`: the same as the script `geoinv`."""

import sys

from geoinv_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
