"""``python -m tokenred``."""

import sys

from tokenred.core.plugins import is_working_folder

# -m puts the working folder first, and nothing in it should be imported.
sys.path[:] = [place for place in sys.path if not is_working_folder(place)]

from tokenred.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
