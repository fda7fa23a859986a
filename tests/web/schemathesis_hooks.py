"""What the run of schemathesis asks of every reply besides its own checks, and what it leaves out.
See test_schemathesis.py, which has it loaded."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.check
def is_no_mistake(ctx: Any, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """No 500. A 504 is fine, where a deadline was asked for that nobody can keep."""
    assert response.status_code < 500 or response.status_code == 504


@schemathesis.hook
def filter_case(context: Any, case: schemathesis.Case) -> bool:
    """No header with the least number that there is: schemathesis sends it as a valid one, then
    reads it as 0, and takes it for what ought to have been refused."""
    return "5e-324" not in map(str, (case.headers or {}).values())
