import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

import property_cases  # noqa: F401  # before pytest asks for a profile by name
