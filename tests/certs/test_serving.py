"""Real TLS on loopback: what a server serves before and after its files change."""

import asyncio
import contextlib
import ssl
import tracemalloc
from asyncio import sslproto

import pytest
from cryptography import x509

from certs.errors import CertificateError
from certs.holdings import CA_CERT, CA_KEY, CLIENT_CERT, CLIENT_KEY, SERVER_CERT, SERVER_KEY, Wanted
from certs.rotate import reconcile
from certs.serving import ServingContext, bound_tls_buffers, client_context
from certs.store import FolderStore

WANTED = Wanted(("localhost",), ("127.0.0.1",), "webhook")


@pytest.fixture
def folder(tmp_path):
    reconcile(FolderStore(tmp_path), WANTED)
    return tmp_path


def issue_again(folder):
    for name in (SERVER_CERT, CLIENT_CERT):
        (folder / name).unlink()
    reconcile(FolderStore(folder), WANTED)


def serving(folder, *, clients=False, required=False):
    ca = folder / CA_CERT if clients else None
    return ServingContext(folder / SERVER_CERT, folder / SERVER_KEY, ca, require_client=required)


@contextlib.asynccontextmanager
async def served(context):
    """Serve an echo that first says who the client is; yield a function that connects."""

    async def answer(reader, writer):
        try:
            peer = writer.get_extra_info("peercert")
            writer.write(f"{bool(peer)}\n".encode())
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        except (ssl.SSLError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    async def connect(client, name="localhost"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        try:
            known = await reader.readline()
        except (ssl.SSLError, ConnectionError):
            known = b""
        if not known:  # TLS 1.3: the client learns of a refusal after its own part of the handshake is done
            await close(writer)
            raise ConnectionError("the server ended the connection")
        return reader, writer, known.strip()

    try:
        yield connect
    finally:
        server.close()
        await server.wait_closed()


def serial(writer):
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(der).serial_number


def end_of(file):
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()


async def close(writer):
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()


async def test_a_renewed_certificate_is_served_to_new_connections_while_old_ones_live_on(folder):
    async with served(serving(folder).context) as connect:
        client = client_context(folder / CA_CERT)
        old_reader, old_writer, _ = await connect(client)
        issue_again(folder)
        _, new_writer, _ = await connect(client)
        assert serial(new_writer) != serial(old_writer)
        assert serial(new_writer) == x509.load_pem_x509_certificate((folder / SERVER_CERT).read_bytes()).serial_number
        old_writer.write(b"still here\n")
        assert await old_reader.readline() == b"still here\n"
        await close(old_writer)
        await close(new_writer)


def test_the_end_of_the_certificate_in_use_is_known_and_follows_the_files(folder):
    context = serving(folder)
    first = context.expiry()
    assert first == end_of(folder / SERVER_CERT)
    (folder / SERVER_CERT).write_bytes(b"damaged")
    assert context.expiry() == first
    for name, source in ((SERVER_CERT, CA_CERT), (SERVER_KEY, CA_KEY)):  # an authority lasts longer than a server
        (folder / name).write_bytes((folder / source).read_bytes())
    assert context.expiry() == end_of(folder / CA_CERT) > first


async def test_a_client_that_names_no_host_gets_the_new_certificate_too(folder):
    """An API server that connects to an address sends no server name."""
    async with served(serving(folder).context) as connect:
        issue_again(folder)
        _, writer, _ = await connect(client_context(folder / CA_CERT), name="127.0.0.1")
        assert serial(writer) == x509.load_pem_x509_certificate((folder / SERVER_CERT).read_bytes()).serial_number
        await close(writer)


async def test_a_pair_caught_between_two_renames_leaves_the_last_good_one_in_use(folder, caplog):
    async with served(serving(folder).context) as connect:
        client = client_context(folder / CA_CERT)
        good = (folder / SERVER_KEY).read_bytes()
        _, first, _ = await connect(client)
        (folder / SERVER_KEY).write_bytes((folder / "ca.key").read_bytes())
        for _ in range(2):
            _, second, _ = await connect(client)
            assert serial(second) == serial(first)
            await close(second)
        assert caplog.text.count("the last good ones stay") == 1
        (folder / SERVER_KEY).write_bytes(good)
        issue_again(folder)
        _, third, _ = await connect(client)
        assert serial(third) != serial(first)
        await close(first)
        await close(third)


async def test_files_that_are_gone_leave_the_last_good_certificate_in_use(folder):
    async with served(serving(folder).context) as connect:
        client = client_context(folder / CA_CERT)
        (folder / SERVER_CERT).unlink()
        _, writer, _ = await connect(client)
        await close(writer)


async def test_a_client_certificate_is_checked_when_it_is_given_and_not_missed_when_it_is_not(folder):
    async with served(serving(folder, clients=True).context) as connect:
        _, writer, known = await connect(client_context(folder / CA_CERT, folder / CLIENT_CERT, folder / CLIENT_KEY))
        assert known == b"True"
        await close(writer)
        _, writer, known = await connect(client_context(folder / CA_CERT))
        assert known == b"False"
        await close(writer)


async def test_a_required_client_certificate_that_is_missing_ends_the_connection(folder):
    async with served(serving(folder, clients=True, required=True).context) as connect:
        with pytest.raises(ConnectionError):
            await connect(client_context(folder / CA_CERT))


async def test_a_client_certificate_of_a_foreign_authority_is_refused(folder, tmp_path_factory):
    foreign = tmp_path_factory.mktemp("foreign")
    reconcile(FolderStore(foreign), WANTED)
    async with served(serving(folder, clients=True).context) as connect:
        with pytest.raises(ConnectionError):
            await connect(client_context(folder / CA_CERT, foreign / CLIENT_CERT, foreign / CLIENT_KEY))


async def test_an_authority_taken_from_the_client_bundle_is_no_longer_accepted(folder, tmp_path_factory):
    foreign = tmp_path_factory.mktemp("foreign")
    reconcile(FolderStore(foreign), WANTED)
    bundle = folder / "clients.crt"
    bundle.write_bytes((folder / CA_CERT).read_bytes() + (foreign / CA_CERT).read_bytes())
    context = ServingContext(folder / SERVER_CERT, folder / SERVER_KEY, bundle).context
    stranger = client_context(folder / CA_CERT, foreign / CLIENT_CERT, foreign / CLIENT_KEY)
    async with served(context) as connect:
        _, writer, known = await connect(stranger)
        assert known == b"True"
        await close(writer)
        bundle.write_bytes((folder / CA_CERT).read_bytes())
        with pytest.raises(ConnectionError):
            await connect(stranger)


async def test_a_client_follows_a_bundle_that_gains_an_authority(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    reconcile(FolderStore(other), WANTED)
    bundle = folder / "trusted.crt"
    bundle.write_bytes((folder / CA_CERT).read_bytes())
    client = client_context(bundle)
    async with served(serving(other).context) as connect:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(client)
        bundle.write_bytes((folder / CA_CERT).read_bytes() + (other / CA_CERT).read_bytes())
        _, writer, _ = await connect(client)
        await close(writer)


async def test_a_certificate_for_another_host_is_refused(folder):
    async with served(serving(folder).context) as connect:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(client_context(folder / CA_CERT), name="other.example")


def test_missing_files_at_the_start_are_a_clear_error(tmp_path):
    with pytest.raises(CertificateError, match=r"tls\.crt is not there; admend-certs issue makes it"):
        serving(tmp_path)


def test_a_pair_that_never_fits_at_the_start_is_a_clear_error(folder, monkeypatch):
    monkeypatch.setattr("certs.serving.FIRST_LOAD_PAUSE", 0)
    (folder / SERVER_KEY).write_bytes((folder / "ca.key").read_bytes())
    with pytest.raises(CertificateError, match="belong together"):
        serving(folder)


def test_requiring_clients_without_an_authority_is_refused(folder):
    with pytest.raises(CertificateError, match="no client authority"):
        serving(folder, required=True)


async def test_many_connections_hold_little_memory_and_long_lines_still_come_whole(folder, monkeypatch):
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", sslproto.SSLProtocol.max_size)  # given back at the end
    bound_tls_buffers()
    async with served(serving(folder).context) as connect:
        client = client_context(folder / CA_CERT)
        tracemalloc.start()
        opened = [await connect(client) for _ in range(30)]
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        line = b"x" * 60_000 + b"\n"
        for reader, writer, _ in opened[:3]:
            writer.write(line)
            assert await reader.readline() == line
        for _, writer, _ in opened:
            await close(writer)
    assert held < 2 * 30 * (64 << 10)  # both ends are in this process
