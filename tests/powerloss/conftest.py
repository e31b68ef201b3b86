import os
import shutil
import sys

import pytest

from tests.powerloss import rig


@pytest.fixture(scope="session")
def shim() -> None:
    """Tests that use the rig need a C compiler, which `make test` installs where it may."""
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip(rig.NO_COMPILER)
    if sys.platform != "linux" or sys.maxsize < 1 << 32 or not os.access("/proc/self/fd", os.R_OK):
        pytest.skip("the shim is for 64-bit Linux with /proc")
