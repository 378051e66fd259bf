"""The gRPC wire, generated from `protocol/sandbox.proto`."""
