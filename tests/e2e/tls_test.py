"""Roles that know each other by certificate (mTLS), on the mock engine.

A request goes through router, prefill worker and decode group; whoever has no certificate, or one of
another authority, is turned away from every gRPC port of a worker; a worker without TLS finds nobody;
and the authority is changed under way: files are written over, and roles started later have the new
one's certificates.
"""
import argparse
import os
import socket
import ssl
import tempfile
import time

import trustme
from cluster import Cluster, RoleProcess

NAME = "tessera-role"
REFRESH_SECONDS = 5  # as in server/rpc/credentials.cpp
PATIENCE_SECONDS = 5
MOCK = ["--engine", "mock", "--mock-decode-step-ms", "1"]
REQUEST = {"prompt": list(range(10, 210)), "max_tokens": 8, "ignore_eos": True}


class Files:
    """Certificate, key and authorities of the roles, as files that may be written over."""

    def __init__(self, folder):
        self.certificate, self.key, self.authorities = (
            os.path.join(folder, name) for name in ("tls.crt", "tls.key", "ca.crt"))

    def write_identity(self, authority):
        issued = authority.issue_cert(NAME)
        for path, pem in ((self.key, issued.private_key_pem), (self.certificate, issued.cert_chain_pems[0])):
            pem.write_to_path(path + ".new")
            os.replace(path + ".new", path)

    def write_authorities(self, *authorities):
        with open(self.authorities + ".new", "wb") as file:
            file.write(b"".join(authority.cert_pem.bytes() for authority in authorities))
        os.replace(self.authorities + ".new", self.authorities)

    def arguments(self):
        return ["--rpc-ssl-certfile", self.certificate, "--rpc-ssl-keyfile", self.key,
                "--rpc-ssl-ca-certs", self.authorities, "--rpc-ssl-name", NAME]


def client_context(authority, identity=None):
    context = ssl.create_default_context(cafile=None)
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    if identity is not None:
        identity.issue_cert("client").configure_cert(context)
    return context


def first_bytes(address, context=None):
    """What a gRPC port says first to a client that has sent HTTP/2's preface; b"" if it closes."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as plain:
        try:
            connection = context.wrap_socket(plain, server_hostname=NAME) if context else plain
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            return connection.recv(9)
        except (ssl.SSLError, ConnectionError):
            return b""


def is_settings(frame):
    return len(frame) == 9 and frame[3] == 4  # HTTP/2, RFC 9113, 6.5


def check_who_gets_in(cluster, authority):
    stranger = trustme.CA()
    for worker in cluster.workers:
        assert is_settings(first_bytes(worker.rpc_address, client_context(authority, authority)))
        assert not is_settings(first_bytes(worker.rpc_address)), "plain text"
        assert not is_settings(first_bytes(worker.rpc_address, client_context(authority)))
        assert not is_settings(first_bytes(worker.rpc_address, client_context(authority, stranger)))


def check_request(cluster):
    before = sum(worker.metric("tessera_handoffs_total", result="committed")
                 for worker in cluster.decodes)
    answer = cluster.complete(REQUEST)
    assert answer["usage"]["completion_tokens"] == REQUEST["max_tokens"], answer
    after = sum(worker.metric("tessera_handoffs_total", result="committed")
                for worker in cluster.decodes)
    assert after == before + 1, f"{before} handoffs before the request, {after} after it"


def wait_until_used():
    time.sleep(REFRESH_SECONDS + 2)  # files are looked at so often: there is nothing to wait on


def check_stranger(options):
    """A router without TLS and workers with it, and no answer."""
    with tempfile.TemporaryDirectory() as folder:
        files = Files(folder)
        authority = trustme.CA()
        files.write_identity(authority)
        files.write_authorities(authority)
        worker = RoleProcess(options.server, "decode", options.model, [*MOCK, *files.arguments()])
        router = RoleProcess(options.server, "router", options.model,
                             ["--prefill-workers", worker.rpc_address, "--decode-workers",
                              worker.rpc_address])
        try:
            worker.start()
            worker.wait_until_ready()
            router.start()
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:
                assert not router.is_ready(), "a router in plain text reached a worker"
                time.sleep(0.2)
            assert router.is_running(), router.read_log()
        finally:
            router.kill()
            worker.kill()


def check_faults(options, files):
    """Options that do not fit together, and a file that is not there, are named."""
    for arguments, expected in (
            (["--rpc-ssl-certfile", files.certificate], "--rpc-ssl-keyfile"),
            (["--rpc-ssl-name", NAME], "--rpc-ssl-name"),
            ([*files.arguments(), "--rpc-ssl-keyfile", "/nonexistent.key"], "/nonexistent.key")):
        role = RoleProcess(options.server, "decode", options.model, [*MOCK, *arguments])
        role.start()
        assert role.process.wait(timeout=30) != 0
        assert expected in role.read_log(), role.read_log()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = Files(folder)
        old, new = trustme.CA(), trustme.CA()
        files.write_identity(old)
        files.write_authorities(old)
        check_faults(options, files)
        check_stranger(options)
        with Cluster(options.server, options.model, prefill=MOCK, decode=MOCK,
                     common=files.arguments(), router=files.arguments()) as cluster:
            check_request(cluster)
            check_who_gets_in(cluster, old)
            files.write_authorities(old, new)
            wait_until_used()
            files.write_identity(new)
            wait_until_used()
            for worker in cluster.workers:
                assert worker.stop() == 0, worker.read_log()
                worker.start()
                worker.wait_until_ready()
            check_request(cluster)
            files.write_authorities(new)
            wait_until_used()
            check_who_gets_in(cluster, new)
            stranger = client_context(new, old)
            for worker in cluster.workers:
                assert not is_settings(first_bytes(worker.rpc_address, stranger)), "the old authority"
            check_request(cluster)
    print("mTLS between roles: strangers turned away, the authority changed under way")


if __name__ == "__main__":
    main()
