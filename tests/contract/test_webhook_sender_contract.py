"""What every `WebhookSender` promises, against receivers on loopback; and what the real one refuses."""

import asyncio
import socket
import threading

import pytest

from runyard.adapters.webhooks import ANSWER_BYTES_MAX, HttpxWebhooks, look_up
from runyard.domain.errors import WebhookFailed, WebhookRefused
from runyard.domain.webhook import EXCERPT_CHARACTERS_MAX
from runyard.ports.webhooks import WebhookAnswer, WebhookSender
from tests.webhook_kit import Receiver

OWN_PORT = 8000
BODY = b'{"id":"job-1","output":"\xc3\xa4"}'


@pytest.fixture(params=["httpx"])
def sender(request: pytest.FixtureRequest) -> WebhookSender:
    return HttpxWebhooks(own_ports=[OWN_PORT])


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", "")).encode() + body


async def test_the_body_arrives_as_json(sender: WebhookSender) -> None:
    async with Receiver().open() as receiver:
        said = await sender.send(f"http://127.0.0.1:{receiver.port}/a%20b?c=d#e", BODY, {"webhook-id": "msg_1"})
        received = await receiver.requests.get()

        assert WebhookAnswer(status=200, excerpt="ok") == said
        assert "POST /a%20b?c=d HTTP/1.1" == received.request_line
        assert "application/json" == received.header("Content-Type")
        assert "msg_1" == received.header("webhook-id")
        assert f"127.0.0.1:{receiver.port}" == received.header("Host")
        assert BODY == received.body


async def test_a_body_may_be_large(sender: WebhookSender) -> None:
    body = b'"' + b"x" * (20 << 20) + b'"'
    async with Receiver().open() as receiver:
        assert 200 == (await sender.send(f"http://127.0.0.1:{receiver.port}/", body, {})).status
        assert body == (await receiver.requests.get()).body


async def test_credentials_in_the_address_are_sent(sender: WebhookSender) -> None:
    async with Receiver().open() as receiver:
        await sender.send(f"http://user:password@127.0.0.1:{receiver.port}/", BODY, {})
        received = await receiver.requests.get()

        assert "Basic dXNlcjpwYXNzd29yZA==" == received.header("Authorization")
        assert f"127.0.0.1:{receiver.port}" == received.header("Host")


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "404 Not Found", "500 Internal Server Error"])
async def test_the_answer_is_the_receivers(sender: WebhookSender, status: str) -> None:
    async with Receiver(answer(status)).open() as receiver:
        assert int(status[:3]) == (await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})).status


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirect_is_an_answer_and_not_followed(sender: WebhookSender, status: str) -> None:
    async with Receiver().open() as other:
        for location in ("http://169.254.169.254/latest/meta-data/", f"http://127.0.0.1:{other.port}/"):
            async with Receiver(answer(status, f"Location: {location}")).open() as receiver:
                assert int(status[:3]) == (await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})).status

        assert other.requests.empty()


async def test_cancelling_ends_a_request_that_hangs(sender: WebhookSender) -> None:
    async with Receiver(answer=None).open() as receiver:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})
        await receiver.left.wait()

        assert BODY == (await receiver.requests.get()).body


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nx"]
)
async def test_no_answer_or_none_of_http_is_a_failure(sender: WebhookSender, reply: bytes) -> None:
    async with Receiver(reply).open() as receiver:
        with pytest.raises(WebhookFailed):
            await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})


async def test_nobody_there_is_a_failure(sender: WebhookSender) -> None:
    async with Receiver().open() as receiver:
        pass
    with pytest.raises(WebhookFailed, match="ConnectError"):
        await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})


@pytest.mark.parametrize("promised", [10, ANSWER_BYTES_MAX * 1000])
async def test_a_200_counts_though_its_body_breaks_off_or_is_huge(sender: WebhookSender, promised: int) -> None:
    sent = b"x" * min(promised - 1, ANSWER_BYTES_MAX * 100)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {promised}\r\n\r\n".encode()
    async with Receiver(head + sent).open() as receiver:
        assert 200 == (await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})).status


async def test_an_endless_body_is_left_and_its_beginning_kept(sender: WebhookSender) -> None:
    async with Receiver(b"HTTP/1.1 200 OK\r\n\r\n", endless=True).open() as receiver:
        said = await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})
        await receiver.left.wait()

    assert WebhookAnswer(status=200, excerpt="x" * EXCERPT_CHARACTERS_MAX) == said


@pytest.mark.parametrize(
    ("body", "excerpt"), [(b"\xff\0no", "\ufffd\0no"), ("ä".encode() * 2000, "ä" * EXCERPT_CHARACTERS_MAX), (b"", "")]
)
async def test_an_excerpt_is_text_and_short(sender: WebhookSender, body: bytes, excerpt: str) -> None:
    async with Receiver(answer("500 Oh", body=body)).open() as receiver:
        assert excerpt == (await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})).excerpt


async def test_heads_without_end_are_not_read(sender: WebhookSender) -> None:
    async with Receiver(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1_000_000).open() as receiver:
        with pytest.raises(WebhookFailed):
            await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})


async def test_a_compressed_answer_stays_compressed(sender: WebhookSender) -> None:
    async with Receiver(answer("200 OK", "Content-Encoding: gzip", body=b"no gzip at all")).open() as receiver:
        assert 200 == (await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})).status


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[fd20:ce::254]",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "0.1.2.3",
        "[::]",
        "224.0.0.1",
        "255.255.255.255",
        "[ff02::1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:0.0.0.0]",
        "[::169.254.169.254]",
        "user:password@169.254.169.254",
        "receiver.test@169.254.169.254",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::169.254.169.254]",
        "[::ffff:0:169.254.169.254]",
        "[2002:a9fe:a9fe::1]",
        "2852039166",
        "0xa9fea9fe",
        "169.254.43518",
        "0",
        f"127.0.0.1:{OWN_PORT}",
        f"127.9.9.9:{OWN_PORT}",
        f"localhost:{OWN_PORT}",
        f"[::1]:{OWN_PORT}",
        f"[::ffff:127.0.0.1]:{OWN_PORT}",
    ],
)
async def test_addresses_that_must_not_be_called_are_refused(sender: WebhookSender, host: str) -> None:
    with pytest.raises(WebhookRefused, match="must not be called"):
        await sender.send(f"http://{host}/", BODY, {})


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///path",
        "http://[::1",
        "http://h:0/",
        "http://h:65536/",
        "ftp://h/",
        "http://h/\0",
        "h",
        "http://0251.0376.0251.0376/",
    ],
)
async def test_what_is_no_address_is_refused(sender: WebhookSender, url: str) -> None:
    with pytest.raises(WebhookRefused, match="URL"):
        await sender.send(url, BODY, {})


@pytest.fixture
def public() -> HttpxWebhooks:
    return HttpxWebhooks(own_ports=[OWN_PORT], public_only=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "240.0.0.1",
        "[::1]",
        "[fd12:3456::1]",
        "[fec0::1]",
        "[2001:db8::1]",
        "[2001:0:1::1]",
        "[64:ff9b:1::10.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::10.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[2002:a00:1::1]",
    ],
)
async def test_public_only_refuses_what_is_not_public(public: WebhookSender, host: str) -> None:
    with pytest.raises(WebhookRefused, match="is not a public address"):
        await public.send(f"http://{host}/", BODY, {})


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::1111", "64:ff9b::5db8:d70e", "2002:5db8:d70e::1"])
async def test_public_only_lets_public_addresses_pass(public: HttpxWebhooks, address: str) -> None:
    assert None is public._refusal(address, 443)


async def test_public_only_checks_the_address_that_is_called() -> None:
    answers = [("93.184.215.14",), ("127.0.0.1",)]
    sender = HttpxWebhooks(own_ports=[], public_only=True, lookup=lambda name: answers[-1])
    async with Receiver().open() as receiver:
        with pytest.raises(WebhookRefused, match=r"127\.0\.0\.1 is not a public address"):
            await sender.send(f"http://rebinding.test:{receiver.port}/", BODY, {})

        assert receiver.requests.empty()


async def test_own_ports_are_refused_on_every_address_of_this_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # Sends nothing: it asks which address would be used.
        except OSError:
            pytest.skip("this machine has no address but loopback")
        here = probe.getsockname()[0]
    sender = HttpxWebhooks(own_ports=[OWN_PORT])

    assert "is the platform itself" == sender._refusal(here, OWN_PORT)
    assert None is sender._refusal(here, OWN_PORT + 1)
    assert None is sender._refusal("93.184.215.14", OWN_PORT), "another machine may use the same port"


@pytest.mark.parametrize("host", ["receiver.invalid", "a..b.invalid", f"{'x' * 64}.invalid", ".invalid", "a b"])
async def test_a_name_without_an_address_is_a_failure(host: str) -> None:
    sender = HttpxWebhooks(own_ports=[], lookup=lambda name: look_up(name) if name == ".invalid" else ())
    with pytest.raises(WebhookFailed, match="no address is known"):
        await sender.send(f"http://{host}/", BODY, {})


async def test_the_address_that_was_checked_is_the_one_that_is_called() -> None:
    answers = [("127.0.0.1",), ("169.254.169.254",)]
    sender = HttpxWebhooks(own_ports=[], lookup=lambda name: answers.pop(0))
    async with Receiver().open() as receiver:
        url = f"http://rebinding.test:{receiver.port}/"

        assert 200 == (await sender.send(url, BODY, {})).status
        assert f"rebinding.test:{receiver.port}" == (await receiver.requests.get()).header("Host")
        with pytest.raises(WebhookRefused, match=r"169\.254\.169\.254 is a link-local address"):
            await sender.send(url, BODY, {})


async def test_tls_is_asked_for_the_name_and_not_for_its_address() -> None:
    hellos: asyncio.Queue[bytes] = asyncio.Queue()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hellos.put_nowait(await reader.read(1 << 16))
        writer.close()

    sender = HttpxWebhooks(own_ports=[], lookup=lambda name: ("127.0.0.1",))
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        with pytest.raises(WebhookFailed):
            await sender.send(f"https://receiver.test:{server.sockets[0].getsockname()[1]}/", BODY, {})

        assert b"receiver.test" in await hellos.get()


async def test_of_several_addresses_the_first_that_answers_and_may_be_called_is_called() -> None:
    # Nobody listens at the second one.
    sender = HttpxWebhooks(own_ports=[], lookup=lambda name: ("169.254.169.254", "127.0.0.2", "127.0.0.1"))
    async with Receiver().open() as receiver:
        assert 200 == (await sender.send(f"http://several.test:{receiver.port}/", BODY, {})).status


async def test_a_slow_name_server_holds_up_one_thread_for_each_name_and_no_address() -> None:
    go, asked = threading.Event(), list[str]()

    def lookup(name: str) -> tuple[str, ...]:
        asked.append(name)
        go.wait(10)
        return ("127.0.0.1",)

    sender = HttpxWebhooks(own_ports=[], lookup=lookup)
    async with Receiver().open() as receiver:
        slow = [asyncio.create_task(sender.send(f"http://slow.test:{receiver.port}/", BODY, {})) for _ in range(40)]
        await asyncio.sleep(0)
        slow[0].cancel()

        assert 200 == (await sender.send(f"http://127.0.0.1:{receiver.port}/", BODY, {})).status
        assert ["slow.test"] == asked
        go.set()

        assert {200} == {answered.status for answered in await asyncio.gather(*slow[1:])}
