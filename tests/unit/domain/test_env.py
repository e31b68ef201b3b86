import subprocess

import pytest

from runyard.domain.endpoint import ENV_BYTES_MAX, ENV_COUNT_MAX, VARIABLE_BYTES_MAX, check_env
from runyard.domain.errors import BadRequest

LONGEST = "x" * (VARIABLE_BYTES_MAX - len("A="))


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ([("A", LONGEST + "x")], f"env value of A is too long: .* {VARIABLE_BYTES_MAX} bytes"),
        ([("A", "é" * (VARIABLE_BYTES_MAX // 2))], "env value of A is too long"),
        ([("A", "a\0b")], "env value of A contains a NUL"),
        ([("1A", "")], "env name '1A' must be letters"),
        ([("A", "x" * 99_000), ("B", "x" * 99_000), ("C", "x" * 99_000)], f"env is larger than {ENV_BYTES_MAX} bytes"),
        ([(f"A{n}", "") for n in range(ENV_COUNT_MAX + 1)], f"at most {ENV_COUNT_MAX}"),
    ],
)
def test_what_no_process_could_be_started_with_is_refused(env: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        check_env(tuple(env))


def test_the_longest_variable_is_one_that_a_process_can_be_started_with() -> None:
    check_env((("A", LONGEST),))

    subprocess.run(["true"], env={"A": LONGEST}, check=True)
    with pytest.raises(OSError, match="too long"):
        subprocess.run(["true"], env={"A": LONGEST + "x"}, check=True)
