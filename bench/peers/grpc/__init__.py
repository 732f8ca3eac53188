"""grpc.aio with generic handlers, server and client."""
