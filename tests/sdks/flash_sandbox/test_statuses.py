"""An error of the server's has one status for users of our client, whichever wire it came over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sandboxd.core.errors import LEAVES
from sandboxd.surfaces.flash.errors import STATUS as HTTP
from sandboxd.surfaces.grpc.errors import CODE_KEY
from sandboxd.surfaces.grpc.errors import STATUS as GRPC

if TYPE_CHECKING:
    from tests.sdks.flash_sandbox.conftest import Installed

ASK = """
import json, sys
from grpc import StatusCode
from flash_sandbox import rpc_errors
print(json.dumps({
    "key": rpc_errors._CODE_KEY,
    "statuses": {code: rpc_errors.status(StatusCode[status], code) for code, status in json.load(sys.stdin).items()},
}))
"""


def test_grpc_tells_what_http_does(installed: Installed) -> None:
    sent = {error.code: GRPC[error].name for error in LEAVES}
    told = json.loads(installed.run("-c", ASK, code=json.dumps(sent)))
    assert told == {"key": CODE_KEY, "statuses": {error.code: HTTP[error] for error in LEAVES}}
