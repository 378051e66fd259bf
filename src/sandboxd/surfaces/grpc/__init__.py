"""The flash-sandbox 0.1 gRPC wire, the service `sandbox.SandboxService`."""

import os

# What gRPC would do in every forked child, so that it may use gRPC too, aborts the child when threads are in gRPC.
# The variable is read when gRPC is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
