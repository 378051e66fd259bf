"""Small servers to talk to: one of gRPC, one of HTTP; each answers as a test tells it to."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Callable

import grpc
import pytest
import trustme

from flash_sandbox.proto import sandbox_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

Answer = Callable[[Any, grpc.ServicerContext], Any]


@dataclass
class PlayedGrpc(grpc.GenericRpcHandler):
    """Answers a call by its last word, whatever stands before; remembers whole paths and requests."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        path = handler_call_details.method
        method = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"].methods_by_name[path.rpartition("/")[2]]
        shape = getattr(sandbox_pb2, method.input_type.name)
        self.paths.append(path)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self.requests.append(request)
            return self.answers[method.name](request, context)

        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=shape.FromString, response_serializer=lambda reply: reply.SerializeToString()
        )


def _serve_grpc(played: PlayedGrpc, credentials: grpc.ServerCredentials | None = None) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(4), options=(("grpc.max_send_message_length", -1),))
    server.add_generic_rpc_handlers((played,))
    if credentials is None:
        played.port = server.add_insecure_port("127.0.0.1:0")
    else:
        played.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server


@pytest.fixture
def played_grpc() -> Iterator[PlayedGrpc]:
    played = PlayedGrpc()
    server = _serve_grpc(played)
    yield played
    server.stop(None).wait()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def played_grpc_over_tls(authority: trustme.CA) -> Iterator[PlayedGrpc]:
    certificate = authority.issue_cert("localhost")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    played = PlayedGrpc()
    server = _serve_grpc(played, grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)]))
    yield played
    server.stop(None).wait()


@dataclass
class PlayedHttp:
    """Gives one answer to every request, and remembers what was asked."""

    port: int = 0
    status: int = 200
    body: object = field(default_factory=dict)
    silence: threading.Event | None = None
    asked: list[tuple[str, str, object]] = field(default_factory=list)


@pytest.fixture
def played_http() -> Iterator[PlayedHttp]:
    played = PlayedHttp()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"] or 0))
            played.asked.append((self.command, self.path, json.loads(sent) if sent else None))
            if played.silence is not None:
                played.silence.wait(20)
            body = played.body.encode() if isinstance(played.body, str) else json.dumps(played.body).encode()
            self.send_response(played.status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the server calls them so

        def log_message(self, *told: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        played.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield played
        if played.silence is not None:
            played.silence.set()
        server.shutdown()
        thread.join()
