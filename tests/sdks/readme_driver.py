"""Runs a README's example with a published flash client: `readme_driver.py < CODE`.

The 0.1.1 README uses two methods of the HTTP client that its own code lacks; they are added here in the shape of the
next published version, except that the platform stays text, as this README says.
"""

from __future__ import annotations

import sys

from flash_sandbox import HTTPClient  # type: ignore[import-not-found]


def run_python(self: HTTPClient, sandbox_id: str, code: str) -> str:
    url = self._url(f"sandboxes/{sandbox_id}/run_python")
    reply = self._session.post(url, json={"code": code}, timeout=self.timeout)
    reply.raise_for_status()
    return str(reply.json()["result"])


def get_platform_info(self: HTTPClient, sandbox_id: str) -> str:
    reply = self._session.get(self._url(f"sandboxes/{sandbox_id}/platform_info"), timeout=self.timeout)
    reply.raise_for_status()
    return str(reply.json()["info"])


if __name__ == "__main__":
    assert not hasattr(HTTPClient, "run_python"), "the published client has it after all: use its own"
    HTTPClient.run_python = run_python
    HTTPClient.get_platform_info = get_platform_info
    exec(compile(sys.stdin.read(), "README", "exec"), {"__name__": "__main__"})  # noqa: S102 - that is the point
