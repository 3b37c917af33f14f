"""gRPC (streams both ways, without generated code) and WebSocket: a server of both, and a client of each; a client of TLS."""

import asyncio
import hashlib
import select
import socket
import ssl
import sys
from concurrent import futures

import grpc
import websockets

METHOD = "/sidestep.Test/Echo"
BIG = 16 << 20


def message(number):
    size = 1 + number * number * 97 % 300_000
    return bytes((i * 31 + number) & 255 for i in range(256)) * (size // 256) + bytes(size % 256)


class Echo(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method == METHOD:
            return grpc.stream_stream_rpc_method_handler(lambda messages, _: messages)
        return None


async def echo(websocket):
    async for received in websocket:
        await websocket.send(received)


async def serve():
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Echo(),))
    assert server.add_insecure_port("0.0.0.0:8081")
    server.start()
    async with websockets.serve(echo, "0.0.0.0", 8082, max_size=BIG):
        await asyncio.Future()


def by_grpc(address):
    whole = hashlib.sha256()
    count = 0
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(METHOD)
        for received in call((message(number) for number in range(300)), timeout=60):
            whole.update(received)
            count += 1
    print(count, "messages,", whole.hexdigest())


async def by_websocket(address):
    whole = hashlib.sha256()
    async with websockets.connect(f"ws://{address}/", max_size=BIG) as websocket:
        for number in range(300):
            await websocket.send(message(number))
            received = await websocket.recv()
            assert received == message(number), number
            whole.update(received)
    print("300 messages,", whole.hexdigest())


def patiently(connection, call):
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            select.select([connection], [], [])
        except ssl.SSLWantWriteError:
            select.select([], [connection], [])


# OpenSSL is asked to let the kernel encrypt (Python 3.12 has a name for the option), and encrypts by itself where it cannot.
def by_tls(address):
    host, port = address.rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.options |= getattr(ssl, "OP_ENABLE_KTLS", 1 << 3)
    plain = socket.socket()
    plain.setblocking(False)
    plain.connect_ex((host, int(port)))
    select.select([], [plain], [])
    connection = context.wrap_socket(plain, do_handshake_on_connect=False)
    patiently(connection, connection.do_handshake)
    body = b"".join(message(number) for number in range(40))
    head = f"PUT /up/tls HTTP/1.1\r\nHost: tls\r\nContent-Length: {len(body)}\r\n\r\n"
    rest = memoryview(head.encode() + body)
    while rest:
        rest = rest[patiently(connection, lambda: connection.send(rest[:65536])) :]
    answer = patiently(connection, lambda: connection.recv(65536))
    rest = b"GET /large HTTP/1.1\r\nHost: tls\r\nConnection: close\r\n\r\n"
    assert patiently(connection, lambda: connection.send(rest)) == len(rest)
    whole = bytearray()
    while received := patiently(connection, lambda: connection.recv(65536)):
        whole += received
    head, _, large = bytes(whole).partition(b"\r\n\r\n")
    print(answer.split(b"\r\n")[0].decode(), head.split(b"\r\n")[0].decode())
    print(len(large), "bytes,", hashlib.sha256(large).hexdigest())


if sys.argv[1] == "serve":
    asyncio.run(serve())
elif sys.argv[1] == "grpc":
    by_grpc(sys.argv[2])
elif sys.argv[1] == "tls":
    by_tls(sys.argv[2])
else:
    asyncio.run(by_websocket(sys.argv[2]))
