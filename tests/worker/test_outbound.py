"""To where something is sent, and to where it never is; how long is waited, and how much is read."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpcore
import pytest

from llc.errors import InputError
from store.addresses import check_url, is_allowed, is_public
from tests.receiver import Receiver, Reply, receiving
from worker import outbound
from worker.outbound import Answer, PostError, post

LOOPBACK = ("127.0.0.1/32",)
NAME = "hooks.example.org"


def send(url: str, networks: Sequence[str] = LOOPBACK, tls: ssl.SSLContext | None = None) -> Answer:
    allowed = [ip_network(network) for network in networks]
    context = tls or httpcore.default_ssl_context()
    return post(url, {"webhook-id": "msg_1"}, b"{}", networks=allowed, allow_http=True, tls=context)


Resolver = Callable[..., None]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> tuple[Resolver, list[str]]:
    """Makes the system's resolver answer NAME with these addresses, one list a question; and what it was asked."""
    asked: list[str] = []
    answers: list[list[str]] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: Any, **options: Any) -> Any:
        if host != NAME:
            return real(host, port, *rest, **options)
        asked.append(host)
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [answer for address in found for answer in real(address, port, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lambda *lists: answers.extend(lists), asked


@pytest.mark.parametrize(
    "address",
    [
        *(
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.168.1.1",
        ),
        *("198.18.0.1", "203.0.113.7", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "ff0e::1", "2001:db8::1"),
        *("3fff::1", "5f00::1", "100::1", "4000::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:224.0.0.1"),  # IPv4 in IPv6
        *("2002:7f00:1::", "2002:a01:203::1"),  # 6to4
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),  # NAT64
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:7f00:1:0:0:f5ff:fffe"),  # Teredo
    ],
)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not is_allowed(ip_address(address), [])


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_what_is_public(address: str) -> None:
    assert is_allowed(ip_address(address), [])


def test_a_network_of_the_operator_is_allowed_and_nothing_beside_it() -> None:
    networks = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
    allowed = ("10.255.0.1", "::ffff:10.0.0.1", "fd00::7", "1.1.1.1")
    assert all(is_allowed(ip_address(address), networks) for address in allowed)
    refused = ("127.0.0.1", "192.168.0.1", "fc00::1", "::1")
    assert not any(is_allowed(ip_address(address), networks) for address in refused)


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.org", "ftp://example.org", "file:///etc/passwd", "gopher://example.org", "//example.org"),
        *("http://example.org", "HTTP://example.org", "https://", "https:///hook", "https:example.org"),
        *("https://me@example.org", "https://me:secret@example.org", "https://example.org@127.0.0.1"),
        *("https://example.org:22", "https://example.org:80", "https://example.org:0", "https://example.org:65536"),
        *("https://example.org:x", "https://[::1", "https://[::1%25eth0]/", "https://exämple.org", "https://a b.org"),
        *("https://example.org/\0", "https://example.org/\n", "https://exa\\mple.org", "https://" + "a" * 2000),
        "https://[v1.fe80::a]/",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InputError) as error:
        check_url(url, allow_http=False)
    assert error.value.code == "bad_webhook_url"
    assert error.value.hint


@pytest.mark.parametrize(
    "url",
    ["https://example.org", "https://example.org:443/a?b=c#d", "https://[2606:4700::1111]:8443/", "HTTPS://A_b.Org."],
)
def test_urls_that_are_not(url: str) -> None:
    assert check_url(url, allow_http=False).hostname


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::ffff:127.0.0.1]"])
def test_this_machine_is_refused_however_it_is_spelt(receiver: Receiver, host: str) -> None:
    with pytest.raises(PostError, match="not on the public internet"):
        send(f"http://{host}:{receiver.port}/", networks=())
    assert receiver.received == []


def test_a_name_that_moves_gains_nothing(receiver: Receiver, resolver: tuple[Resolver, list[str]]) -> None:
    """Once it is resolved; what it is called a moment later is not asked for, so the second answer is never met."""
    answer, asked = resolver
    answer(["127.0.0.1"], ["127.0.0.2"])
    with receiving(host="127.0.0.2") as other:
        assert send(f"http://{NAME}:{receiver.port}/").status == 204
        assert asked == [NAME]
        with pytest.raises(PostError, match="not on the public internet"):
            send(f"http://{NAME}:{other.port}/")
        assert other.received == []
    (request,) = receiver.received
    assert request.address == "127.0.0.1"
    assert request.headers["host"] == f"{NAME}:{receiver.port}"


def test_one_address_that_is_not_allowed_is_enough(receiver: Receiver, resolver: tuple[Resolver, list[str]]) -> None:
    resolver[0](["127.0.0.1", "127.0.0.2"])
    with pytest.raises(PostError, match="not on the public internet"):
        send(f"http://{NAME}:{receiver.port}/")
    assert receiver.received == []


def test_of_several_addresses_the_next_is_tried(receiver: Receiver, resolver: tuple[Resolver, list[str]]) -> None:
    resolver[0](["127.0.0.3", "127.0.0.1"])
    assert send(f"http://{NAME}:{receiver.port}/", networks=["127.0.0.0/8"]).status == 204


def test_what_is_not_there() -> None:
    with pytest.raises(PostError, match="no address"):
        send("http://nobody.invalid/")
    with pytest.raises(PostError, match="no address"):
        send(f"http://{'a' * 64}.org/")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(PostError, match="refused"):
        send(f"http://127.0.0.1:{port}/")


def test_no_redirect_is_followed_and_no_proxy_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        receiver.reply = Reply(307, {"Location": f"{receiver.url}/there"})
        assert send(f"{receiver.url}/here").status == 307
    assert [request.path for request in receiver.received] == ["/here"]
    assert proxy.received == []


def test_little_of_an_answer_is_read_and_less_kept(receiver: Receiver) -> None:
    receiver.reply = Reply(500, {"Content-Length": str(2**40)}, b"x" * 10_000_000)
    started = time.monotonic()
    answer = send(receiver.url)
    assert (answer.status, answer.text) == (500, "x" * outbound.KEPT_BYTES)
    assert time.monotonic() - started < 5


def test_what_is_compressed_stays_so(receiver: Receiver) -> None:
    receiver.reply = Reply(500, {"Content-Encoding": "gzip"}, b"\x1f\x8b not really")
    assert "not really" in send(receiver.url).text


def _dripping(listener: socket.socket, over: threading.Event) -> None:
    """One byte of an endless header after the other."""
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not over.wait(0.05):
            try:
                connection.sendall(b"x")
            except OSError:
                return


def test_a_byte_now_and_then_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "TOTAL_SECONDS", 0.6)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_dripping, args=(listener, over))
        thread.start()
        started = time.monotonic()
        with pytest.raises(PostError, match="no answer in time"):
            send(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        over.set()
        thread.join()
    assert 0.5 < time.monotonic() - started < 3


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b"\0" * 100])
def test_who_speaks_no_http(said: bytes) -> None:
    def speak() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(PostError):
            send(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of NAME, and its key, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    command += ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_tls_is_with_the_name(certificate: tuple[Path, Path], resolver: tuple[Resolver, list[str]]) -> None:
    cert, key = certificate
    resolver[0](["127.0.0.1"])
    names: list[str | None] = []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    server.sni_callback = lambda _socket, name, _context: names.append(name)
    trusting = ssl.create_default_context(cafile=cert)
    with receiving(server) as receiver:
        url = f"https://{NAME}:{receiver.port}/"
        assert send(url, tls=trusting).status == 204
        assert names == [NAME]
        with pytest.raises(PostError, match="CERTIFICATE_VERIFY_FAILED"):
            send(url)  # nobody it trusts has signed it
        with pytest.raises(PostError, match="CERTIFICATE_VERIFY_FAILED"):
            send(f"https://127.0.0.1:{receiver.port}/", tls=trusting)  # it is another's
        assert len(receiver.received) == 1
