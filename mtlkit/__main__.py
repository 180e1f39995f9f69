"""``python -m mtlkit`` is the command ``mtlkit``."""

import sys

from mtlkit.cli import main

sys.exit(main())
