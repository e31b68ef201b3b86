from pathlib import Path

import pytest

from runyard.adapters.requirements import has_local, lock_text, names_sdk, reason, requirements_file


@pytest.mark.parametrize(
    ("files", "handler", "found"),
    [
        ([], "handler.py", None),
        (
            ["requirements.txt", "src/requirements.txt", "builder/requirements.txt"],
            "src/handler.py",
            "requirements.txt",
        ),
        (["src/requirements.txt", "builder/requirements.txt"], "src/handler.py", "src/requirements.txt"),
        (["src/requirements.txt", "builder/requirements.txt"], "handler.py", "builder/requirements.txt"),
    ],
)
def test_requirements_are_looked_for_where_people_keep_them(
    tmp_path: Path, files: list[str], handler: str, found: str | None
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()

    assert found == (str(name) if (name := requirements_file(tmp_path, handler)) else None)


@pytest.mark.parametrize(
    "line",
    [
        "runpod",
        "runpod==1.7.9",
        "RunPod ~= 1.7.9  # as the template does",
        "runpod[extra]>=1",
        "runpod @ https://example.com/runpod.whl",
        "runpod ; python_version > '3'",
        "git+https://github.com/runpod/runpod-python.git",
        "runpod \\\n  ==1.9.0",
    ],
)
def test_a_named_sdk_is_seen(line: str) -> None:
    assert names_sdk(f"torch\n{line}\n")


@pytest.mark.parametrize("line", ["", "# runpod", "runpod-flash", "runpodctl", "my-runpod", "torch # for runpod"])
def test_no_other_line_counts_as_the_sdk(line: str) -> None:
    assert not names_sdk(f"torch\n{line}\n")


@pytest.mark.parametrize(
    "line", ["./pkg", "-e .", "--editable=./pkg", "../x.whl", "/abs/x.whl", "file:///x", "x @ file:x"]
)
def test_paths_are_local(line: str) -> None:
    assert has_local(f"torch==2\n{line}\n")


@pytest.mark.parametrize("line", ["torch==2", "x @ https://a/x.whl", "--extra-index-url https://a/simple", "# ./pkg"])
def test_names_and_addresses_are_not_local(line: str) -> None:
    assert not has_local(f"{line}\n")


def test_a_lock_holds_pins_and_where_the_bundle_finds_packages() -> None:
    asked = "# ours\n--extra-index-url https://a/cpu  # torch\n-f https://b\n-r more.txt\n--pre\ntorch\n-e ./pkg\n"

    assert lock_text("torch==2\n-e ./pkg\n    # via nobody\n", asked) == (
        "--extra-index-url https://a/cpu\n-f https://b\ntorch==2\n./pkg\n"
    )


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ([], "it gave no reason"),
        (["Killed", ""], "Killed"),
        (
            ["Using Python", "error: No solution found", "  cause: Because a is not there", "", "hint: look elsewhere"],
            "No solution found: Because a is not there",
        ),
        (
            [
                "error: The backend failed",
                "  cause: Call to x failed",
                "",
                "   [stderr]",
                "   Traceback",
                "   boom: no CUDA",
            ],
            "The backend failed: Call to x failed: boom: no CUDA",
        ),
    ],
)
def test_the_reason_is_told_in_few_words(output: list[str], said: str) -> None:
    assert reason(output) == said
