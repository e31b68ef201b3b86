from hypothesis import given
from hypothesis import strategies as st

from runyard.adapters.docker.dockerfiles import images_of, instructions, stages, with_lines

MULTI = """\
# syntax=docker/dockerfile:1
ARG TAG=3.11
FROM --platform=$BUILDPLATFORM python:${TAG} AS Build

RUN pip install \\
    # a comment, and an empty line

    numpy
from build as test
RUN pytest
FROM scratch
COPY --from=build /a /a
COPY --from=0 /b /b
COPY --from=ghcr.io/astral/uv:1 /uv /uv
"""


def words(text: str) -> list[str]:
    return [each.word for each in instructions(text)]


def test_lines_that_go_on_are_one_instruction() -> None:
    assert ["ARG", "FROM", "RUN", "FROM", "RUN", "FROM", "COPY", "COPY", "COPY"] == words(MULTI)
    assert "pip install     numpy" == instructions(MULTI)[2].text


def test_the_escape_character_can_be_another() -> None:
    windows = "#escape=`\r\nFROM a\r\nCOPY x C:\\\r\nRUN dir `\r\n  FROM b\r\n"

    assert ["FROM", "COPY", "RUN"] == words(windows)
    assert ["FROM", "COPY"] == words(windows.replace("#escape=`\r\n", "").replace("`\r\n", "x\\\r\n"))


def test_a_directive_counts_before_all_else_only() -> None:
    assert ["FROM", "RUN", "X"] == words("FROM a\n# escape=`\nRUN b `\nX\n")
    assert ["FROM", "RUN", "X"] == words("# a comment\n# escape=`\nFROM a\nRUN b `\nX\n")
    assert ["FROM", "RUN"] == words("# syntax=x\n# escape = `\nFROM a\nRUN b `\nX\n")


def test_an_escaped_escape_does_not_go_on() -> None:
    assert ["RUN", "FROM"] == words("RUN echo \\\\\nFROM a\n")


def test_a_here_document_holds_no_instructions() -> None:
    text = "FROM a\nRUN <<EOF cat - 3<<'B'\nFROM b\nEOF\nFROM c\nB\nCOPY <<-X /x\n\tFROM d\n\tX\nFROM e\n"

    assert ["FROM", "RUN", "COPY", "FROM"] == words(text)
    assert ["a", "e"] == [stage.image for stage in stages(text, {})]


def test_what_only_looks_like_a_here_document_is_none() -> None:
    text = "FROM a\nRUN echo $((1<<EOF)) && cat <<< EOF\nFROM b\nEOF\nLABEL x <<EOF\nFROM c\nEOF\nRUN cat <<NEVER\nFROM d\n"

    assert ["a", "b", "c", "d"] == [stage.image for stage in stages(text, {})]


def test_stages_know_what_they_go_on_with() -> None:
    found = stages(MULTI, {})

    assert [("python:3.11", "build", None), ("build", "test", 0), ("scratch", None, None)] == [
        (stage.image, stage.name, stage.base) for stage in found
    ]
    assert [False, False, True] == [stage.from_nothing for stage in found]


def test_arguments_name_images() -> None:
    text = 'ARG REG="ghcr.io/me"\nARG NAME=$REG/app A=1\nARG EMPTY\nFROM ${NAME}:${TAG:-2}${EMPTY:+x}\nARG NAME=no\n'

    assert ["ghcr.io/me/app:2"] == images_of(text, {})
    assert ["b/app:2x"] == images_of(text, {"REG": "b", "EMPTY": "1", "OTHER": "c"})
    assert [] == images_of("FROM ${NOBODY_KNOWS}\n", {"NOBODY_KNOWS": "declared nowhere"})


def test_images_are_what_a_build_starts_and_copies_from() -> None:
    assert ["python:3.11", "ghcr.io/astral/uv:1"] == images_of(MULTI, {})


def test_each_stage_gets_what_it_has_not() -> None:
    text = "FROM a AS one\nRUN x\nFROM one\nFROM scratch AS root\nADD r /\nFROM root"
    altered = with_lines(text, {}, first=["LABEL l=1"], trust=["ENV t=1"], declared=["PIP", "HTTP_PROXY"])

    assert [
        "FROM a AS one",
        "LABEL l=1",
        "ENV t=1",
        "ARG PIP",
        "RUN x",
        "FROM one",
        "ARG PIP",
        "FROM scratch AS root",
        "LABEL l=1",
        "ADD r /",
        "FROM root",
        "ENV t=1",
        "ARG PIP",
    ] == altered.text.splitlines()
    assert (0, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 1) == altered.added
    assert [1, 1, 1, 1, 2, 3] == [altered.line_before(number) for number in range(1, 7)]
    assert 99 == altered.line_before(99)


def test_additions_come_after_the_last_line_of_a_from() -> None:
    altered = with_lines("# escape=`\nFROM `\n  # why\n  a `\n  AS b\nRUN c\n", {}, first=["LABEL l=1"])

    assert ["  AS b", "LABEL l=1", "RUN c"] == altered.text.splitlines()[4:]


PIECES = st.sampled_from(
    [
        "FROM a",
        "FROM scratch AS s",
        "FROM s",
        "RUN x",
        "RUN x \\",
        "# c",
        "",
        "RUN <<E",
        "E",
        "  y",
        "\tE",
        "ARG A=1",
        "\r",
    ]
)


@given(st.lists(PIECES, max_size=12))
def test_what_its_owner_wrote_stays(lines: list[str]) -> None:
    text = "\n".join(lines)
    altered = with_lines(text, {}, first=["LABEL ours=1"], trust=["ENV ours=2"], declared=["ours3"])
    rest = [line for line in altered.text.split("\n") if "ours" not in line]

    assert lines == (rest if lines else [])
    assert len(altered.added) == len(instructions(altered.text))
    assert len(instructions(text)) == altered.added.count(False)
    assert [stage.image for stage in stages(text, {})] == [stage.image for stage in stages(altered.text, {})]
    assert all(text.split("\n")[altered.line_before(n + 1) - 1] == line
               for n, line in enumerate(altered.text.split("\n")) if "ours" not in line)  # fmt: skip
