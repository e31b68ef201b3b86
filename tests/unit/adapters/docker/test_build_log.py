import pytest

from runyard.adapters.docker.build_log import BuildLog, failure

SAID = (
    "Step 1/5 : ARG B=base",
    "\n",
    "Step 2/5 : FROM $B",
    "\n",
    " ---> ef865ebdb3dc\n",
    "Step 3/5 : LABEL runyard.build=yes",
    "\n",
    " ---> Using cache\n",
    " ---> 2be8a971961f\n",
    "Step 4/5 : RUN pip install x",
    "\n",
    " ---> Running in f0cc6402ca2e\n",
    "Collecting x\nDown",
    "loading x\n\n",
    "\x1b[91mno wheel\n\x1b[0m",
    "Removing intermediate container f0cc6402ca2e\n",
    " ---> 5dc18717d1f4\n",
    "Step 5/5 : COPY . /app",
    "\n",
    " ---> Using cache\n",
    " ---> 5dc18717d1f5\n",
    "Successfully built 5dc18717d1f5\n",
    "Successfully tagged runyard/built:abc\n",
)


def lines(log: BuildLog, said: tuple[str, ...] = SAID) -> list[str]:
    heard = [line for text in said for line in log.take({"stream": text})]
    return [*heard, *log.take({"aux": {"ID": "sha256:1"}}), *log.end()]


def test_steps_have_the_numbers_of_their_owner() -> None:
    assert [
        "building step 1 of 4: ARG B=base",
        "building step 2 of 4: FROM $B",
        "building step 3 of 4: RUN pip install x",
        "Collecting x",
        "Downloading x",
        "no wheel",
        "building step 4 of 4: COPY . /app",
        "step 4 of 4 is unchanged",
    ] == lines(BuildLog([False, False, True, False, False]))


def test_steps_that_cannot_be_told_apart_keep_their_numbers() -> None:
    assert "building step 3 of 5: LABEL runyard.build=yes" in lines(BuildLog([False, True]))


def test_the_last_lines_are_those_of_the_failing_step() -> None:
    log = BuildLog([False, False, True, False, False])
    lines(log, ("Step 1/5 : ARG B=base\n", "of an earlier step\n", *SAID[2:15]))

    assert " at step 3 of 4: RUN pip install x" == log.where
    assert ["Collecting x", "Downloading x", "no wheel"] == list(log.tail)


def test_an_exit_code_is_said_shortly() -> None:
    command = "The command '/bin/sh -c echo it's; exit 3' returned a non-zero code: "

    assert "the build failed at step 2 of 3: RUN x: exit code 3" == failure(
        command + "3", " at step 2 of 3: RUN x", int
    )
    assert "killed" in failure(command + "137", "", int)


@pytest.mark.parametrize("on", ["", "on "])
def test_a_parse_error_has_the_line_of_the_original(on: str) -> None:
    said = f"dockerfile parse error {on}line 5: unknown instruction: BLAH"

    assert f"the build failed: dockerfile parse error {on}line 2: unknown instruction: BLAH. Runyard builds" in failure(
        said, "", lambda line: line - 3
    )


def test_what_is_meant_for_buildkit_is_said_to_be() -> None:
    assert "meant for BuildKit" in failure("the --mount option requires BuildKit. Refer to ...", "", int)
    assert "BuildKit" not in failure("COPY failed: file not found in build context", "", int)
