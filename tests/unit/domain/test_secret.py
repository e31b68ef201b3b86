import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.domain.errors import BadRequest
from runyard.domain.secret import (
    NAME_LENGTH_MAX,
    REDACTED_LENGTH_MIN,
    VALUE_BYTES_MAX,
    FormerSecret,
    Redactor,
    Registry,
    RegistryId,
    Secret,
    check_secret_name,
    check_server,
    check_value,
    filled,
    references,
)
from tests.builders import START

KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n  kqhkiG9w0BAQEF\n-----END KEY-----\n"


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ("{{ RUNPOD_SECRET_hf }}", "TOKEN"),
        ("{{RUNPOD_SECRET_hf}}", "TOKEN"),
        ("{{ \t  RUNPOD_SECRET_hf   }}", "TOKEN"),
        (
            "postgres://me:{{ RUNPOD_SECRET_pw }}@db/{{ RUNPOD_SECRET_hf }}",
            "postgres://me:{{ RUNPOD_SECRET_hf }}@db/TOKEN",
        ),
        ("{{ RUNPOD_SECRET_hf }}{{ RUNPOD_SECRET_hf }}", "TOKENTOKEN"),
        ("{{{ RUNPOD_SECRET_hf }}}", "{TOKEN}"),
        *(
            (text, text)
            for text in (
                "{{ RUNPOD_SECRET_ }}",
                "{ RUNPOD_SECRET_hf }",
                "{{ runpod_secret_hf }}",
                "{{ SECRET_hf }}",
                "{{ RUNPOD_SECRET_h f }}",
                "{{\nRUNPOD_SECRET_hf\n}}",
                "{{ RUNPOD_SECRET_hf",
                "{{ xRUNPOD_SECRET_hf }}",
                "{{ RUNPOD_SECRET_" + "n" * (NAME_LENGTH_MAX + 1) + " }}",
                "$RUNPOD_SECRET_hf",
            )
        ),
    ],
)
def test_exactly_the_documented_form_stands_for_a_value(value: str, becomes: str) -> None:
    env = (("PLAIN", "text"), ("A", value))
    values = {"hf": "TOKEN", "pw": "{{ RUNPOD_SECRET_hf }}"}

    assert {"PLAIN": "text", "A": becomes} == filled(env, values)


def test_an_environment_names_its_secrets_and_where_first() -> None:
    env = (
        ("A", "x"),
        ("B", "{{ RUNPOD_SECRET_two }} {{RUNPOD_SECRET_one}}"),
        ("C", "{{ RUNPOD_SECRET_one }}{{ RUNPOD_SECRET_v1.2-b }}"),
    )

    assert {"two": "B", "one": "B", "v1.2-b": "C"} == references(env)
    assert {} == references(())


@pytest.mark.parametrize("name", ["a", "_", "0", "hf_token", "a.b-c", "n" * NAME_LENGTH_MAX])
def test_a_name_that_can_be_referred_to_is_taken(name: str) -> None:
    check_secret_name(name)

    assert {name: "A"} == references((("A", f"{{{{ RUNPOD_SECRET_{name} }}}}"),))


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "ä", "a\n", "a}", "n" * (NAME_LENGTH_MAX + 1)])
def test_a_name_that_cannot_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="begins with a letter"):
        check_secret_name(name)


@pytest.mark.parametrize("value", ["", "hidden\0", "hidden\ud800", "h" * (VALUE_BYTES_MAX + 1), "ä" * VALUE_BYTES_MAX])
def test_a_value_that_no_environment_can_hold_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_value(value)

    assert "hidden" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_value_may_have_lines_and_any_letters() -> None:
    check_value(KEY)
    check_value("ä" * (VALUE_BYTES_MAX // 2))


@pytest.mark.parametrize(
    ("server", "kept"), [("ghcr.io", "ghcr.io"), ("LOCALHOST:5000", "localhost:5000"), ("[::1]:80", "[::1]:80")]
)
def test_a_server_is_what_stands_before_the_names_of_images(server: str, kept: str) -> None:
    assert kept == check_server(server)


@pytest.mark.parametrize(
    "server",
    ["", "https://ghcr.io", "ghcr.io/", "ghcr.io/me", "a b", "-a.io", "a:port", "a\n", "a:\N{FULLWIDTH DIGIT FOUR}"],
)
def test_what_is_no_server_is_refused(server: str) -> None:
    with pytest.raises(BadRequest, match="HOST:PORT"):
        check_server(server)


# --- Redaction


def test_values_are_replaced_by_their_names_wherever_they_stand() -> None:
    redact = Redactor([("hf", "hf_abcdef"), ("pw", "p@ss/word")])

    assert "using [secret hf] and '[secret pw]', [secret hf]" == redact("using hf_abcdef and 'p@ss/word', hf_abcdef")
    assert "nothing here" == redact("nothing here")
    assert "hf_abcdef" == Redactor()("hf_abcdef")


@pytest.mark.parametrize("length", [REDACTED_LENGTH_MIN - 1, REDACTED_LENGTH_MIN])
def test_short_values_stand_in_lines_by_chance(length: int) -> None:
    value = "x" * length

    assert (length < REDACTED_LENGTH_MIN) == (value in Redactor([("a", value)])(value))


def test_a_value_with_lines_is_redacted_line_by_line() -> None:
    redact = Redactor([("key", KEY)])

    assert {"[secret key]"} == {redact(line).strip() for line in KEY.splitlines()}
    assert "the key is [secret key]" == redact(f"the key is {KEY.strip()}")


def test_of_two_values_that_share_a_beginning_neither_leaves_a_rest() -> None:
    redact = Redactor([("short", "abcdef"), ("long", "abcdefghi")])

    assert "[secret long] [secret short]" == redact("abcdefghi abcdef")


@pytest.mark.parametrize(
    "shown",
    [
        lambda value: json.dumps({"requestId": None, "message": value}),
        lambda value: json.dumps({"message": value}, ensure_ascii=False),
        lambda value: json.dumps({"message": json.dumps({"inner": value})}),
        repr,
        lambda value: repr([value]),
        lambda value: repr(value.encode()),
        lambda value: f"postgres://me:{quote(value, safe='')}@db",
        lambda value: f"https://db/{quote(value)}",
    ],
    ids=["json", "json-utf8", "json-in-json", "repr", "repr-in-list", "repr-of-bytes", "url", "url-path"],
)
def test_escaped_values_are_redacted_as_well(shown) -> None:
    value = "pä\"ss\\wo\trd/ 'x"
    line = Redactor([("pw", value)])(shown(value))

    assert "[secret pw]" in line
    assert "rd" not in line


def test_a_quote_in_a_value_may_be_escaped_for_the_sake_of_what_stands_beside_it() -> None:
    assert "'say \"[secret pw]\"'" == Redactor([("pw", "it's-so")])(repr('say "it\'s-so"'))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(min_size=REDACTED_LENGTH_MIN)), max_size=4), st.data())
def test_no_value_that_is_long_enough_is_in_a_redacted_line(values: list[tuple[str, str]], data: st.DataObject) -> None:
    pieces = [value.strip() for _, value in values]
    line = " ".join(data.draw(st.permutations([*pieces, "and", "or"])))
    redacted = Redactor(values)(line)

    assert [] == [
        piece for piece in pieces if len(piece) >= REDACTED_LENGTH_MIN and piece in redacted and "[" not in piece
    ]


def test_what_is_sealed_is_not_shown_either() -> None:
    times = {"created_at": START, "updated_at": START}
    shown = [
        Secret(name="a", sealed=b"sealed-bytes", **times),
        FormerSecret(id=1, name="a", sealed=b"sealed-bytes", replaced_at=START),
        Registry(id=RegistryId("r"), name="a", server=None, sealed=b"sealed-bytes", created_at=START),
    ]

    assert not [text for text in map(repr, shown) if "sealed-bytes" in text]
