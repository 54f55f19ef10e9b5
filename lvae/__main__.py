"""`python -m lvae` is `lvae`."""

import sys
from pathlib import Path

if not sys.flags.safe_path and sys.path[:1] == [str(Path.cwd())]:  # which `-m` puts there
    del sys.path[0]  # files in the working directory are no modules

from lvae.cli import main

main()
