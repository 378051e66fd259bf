"""Runs the checks of the flash driver over gRPC: `swapped_driver.py DRIVER ADDRESS`.

One client is swapped for the other. The driver's code is not touched: whatever it does with an `HTTPClient` it does
with a `SandboxClient`.
"""

from __future__ import annotations

import runpy
import sys

import flash_sandbox  # type: ignore[import-not-found]

HTTP_ONLY = {
    "an_injected_session_with_headers_of_its_own",  # gRPC's channel is no session
    "a_caller_that_gives_up_takes_its_command_along",  # catches an exception of requests
    "paths_of_no_snapshot_are_refused",  # gRPC's message has no room for them, so the client refuses
}

if __name__ == "__main__":
    driver, address = sys.argv[1:]
    flash_sandbox.HTTPClient = flash_sandbox.SandboxClient
    for check in runpy.run_path(driver)["CHECKS"]:
        if check.__name__ not in HTTP_ONLY:
            check(address)
            print(check.__name__, flush=True)  # noqa: T201 - the report that the test reads
