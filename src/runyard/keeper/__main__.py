"""Run by its path, isolated and without site packages: `python -I -S .../keeper/__main__.py CHARGE`."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))
    from runyard.keeper.keeper import Charge, Keeper

    sys.exit(Keeper(Charge(**json.loads(sys.argv[1]))).run())
