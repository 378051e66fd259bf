"""OCI command-line runtimes: one implementation, a table of flavours."""
