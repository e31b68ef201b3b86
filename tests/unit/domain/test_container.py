import pytest

from runyard.domain.container import ContainerSpec, ImageName, Limits, check_image, port_of, split_words
from runyard.domain.errors import BadRequest

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("reference", "name", "host", "tag", "digest"),
    [
        ("python", "python", None, None, None),
        ("runpod/worker-vllm:v2.4", "runpod/worker-vllm", None, "v2.4", None),
        ("localhost:5000/a/b:1", "localhost:5000/a/b", "localhost:5000", "1", None),
        ("localhost/a", "localhost/a", "localhost", None, None),
        ("ghcr.io/org/app__x@" + DIGEST, "ghcr.io/org/app__x", "ghcr.io", None, DIGEST),
        ("registry:5000/app", "registry:5000/app", "registry:5000", None, None),
        ("127.0.0.1:5000/app:Tag_1.0-x", "127.0.0.1:5000/app", "127.0.0.1:5000", "Tag_1.0-x", None),
    ],
)
def test_a_reference_is_taken_apart(
    reference: str, name: str, host: str | None, tag: str | None, digest: str | None
) -> None:
    assert check_image(reference) == ImageName(name, host, tag, digest)


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "Upper/case",
        "a b",
        "a:",
        "a@sha256:12",
        "-a",
        "a/",
        "/a",
        "a:tag:tag",
        "a\n",
        "http://x/y",
        "host:\N{FULLWIDTH DIGIT FIVE}/a",
        "a" * 513,
        "a:" + "b" * 129,
    ],
)
def test_what_names_no_image_is_refused(reference: str) -> None:
    with pytest.raises(BadRequest, match="no image reference"):
        check_image(reference)


def test_without_an_image_it_is_built() -> None:
    assert ContainerSpec(dockerfile="docker/Dockerfile").built
    assert not ContainerSpec(image="app").built


@pytest.mark.parametrize(
    ("port", "number", "protocol"), [("8000/http", 8000, "tcp"), ("22", 22, "tcp"), ("53/udp", 53, "udp")]
)
def test_a_port_has_a_number_and_a_protocol(port: str, number: int, protocol: str) -> None:
    assert port_of(port) == (number, protocol)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ports": ("0/tcp",)},
        {"ports": ("65536/http",)},
        {"ports": ("http",)},
        {"ports": ("\N{FULLWIDTH DIGIT EIGHT}/tcp",)},
        {"ports": tuple(f"{n}/tcp" for n in range(1, 12))},
        {"args": ("a\0b",)},
        {"entrypoint": ("x" * 200_000,)},
        {"build_args": (("A", "\0"),)},
        {"build_args": (("A=B", "1"),)},
        {"build_args": (("", "1"),)},
    ],
)
def test_what_no_engine_would_take_is_refused(wrong: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(BadRequest):
        ContainerSpec(image="app", **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpus": 0.0},
        {"cpus": float("nan")},
        {"memory_bytes": 1 << 20},
        {"pids": 0},
        {"disk_bytes": 1},
        {"shm_bytes": 2**60},
    ],
)
def test_limits_that_no_worker_could_live_in_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadRequest, match="limit"):
        Limits(**wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("  python -u  handler.py ", ("python", "-u", "handler.py")),
        ("sh -c 'echo \"a b\" $HOME # x'", ("sh", "-c", 'echo "a b" $HOME # x')),
        ('a\\ b ""', ("a b", "")),
        ("a\nb", ("a", "b")),
    ],
)
def test_words_are_split_as_a_shell_does_and_not_expanded(text: str, words: tuple[str, ...]) -> None:
    assert words == split_words("args", text)


@pytest.mark.parametrize("text", ["it's", 'a "b', "a\\"])
def test_words_that_no_shell_could_split_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="args: cannot be split into words as a shell does"):
        split_words("args", text)


def test_arguments_are_shown_as_they_were_written() -> None:
    assert "-u  x" == ContainerSpec(image="app", args=("-u", "x"), args_text="-u  x").args_line
    assert "-u 'a b'" == ContainerSpec(image="app", args=("-u", "a b")).args_line
