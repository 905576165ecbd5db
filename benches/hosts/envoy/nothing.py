"""An ext_proc server that does nothing but answer: the least that Python's gRPC costs.

Reads what Envoy sends in FULL_DUPLEX_STREAMED mode without response bodies, and answers with
constants: the first endpoint given, and a body of the size asked for.

    python benches/hosts/envoy/nothing.py PORT ENDPOINT BYTES
"""

import sys
from typing import Any

import grpc
from routecore.integrations.envoy import responses, wire
from routecore.integrations.envoy.health import EXT_PROC, Health
from routecore.integrations.envoy.server import OPTIONS

# Envoy ends each body with a message of its own.
_LAST = bytes((wire.REQUEST_BODY, 2, 2 << 3, 1))


async def main(port: int, endpoint: str, size: int) -> None:
    named = responses.destination(endpoint, with_body=False)
    chunks = list(wire.chunks(wire.REQUEST_BODY, memoryview(b"x" * size), 62_000))

    async def process(_requests: Any, context: Any) -> None:
        read, write = context.read, context.write
        while (raw := await read()) is not grpc.aio.EOF:
            if raw.startswith(_LAST):
                await write(named)
                for chunk in chunks:
                    await write(chunk)
            elif raw[0] == wire.RESPONSE_HEADERS:
                await write(responses.RESPONSE_HEADERS)
            elif raw[0] == wire.RESPONSE_TRAILERS:
                await write(responses.RESPONSE_TRAILERS)

    server = grpc.aio.server(options=OPTIONS)
    handler = grpc.stream_stream_rpc_method_handler(process)
    service = grpc.method_handlers_generic_handler(EXT_PROC, {"Process": handler})
    server.add_generic_rpc_handlers((service,))
    health = Health(server)
    await health.start()
    await health.set_ready(True)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
