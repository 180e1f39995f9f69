import sys
from pathlib import Path

here = Path(__file__).parent
sys.path[:0] = [str(here), str(here.parent / "balancers")]
sys.path.append(str(here.parent / "datasets"))  # for dataset_files
