# SPDX-License-Identifier: Apache-2.0
"""What the OpenAPI document says of what monitoring asks."""

from updaterd.server import metrics
from updaterd.server.http.openapi.forms import Codes, Part, responses

_METRICS: Codes = {
    401: ("operate_scope_required", "identity_refused"),
    403: ("operate_scope_required",),
    404: ("not_found",),
}
READY: Codes = {503: ("log_unreachable", "not_ready")}


def probe_operation(name: str, summary: str, refused: Codes) -> Part:
    """Return what a probe is."""
    return {
        "operationId": name,
        "tags": ["operation"],
        "summary": summary,
        "responses": responses(
            refused,
            s200={
                "description": "It does",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
        ),
    }


def metrics_operation() -> Part:
    """Return what reading the counters is."""
    return {
        "operationId": "metrics",
        "tags": ["operation"],
        "summary": "Counters, for Prometheus",
        "description": f"`Accept` decides: {metrics.PLAIN}, or {metrics.OPEN} where "
        "that is named and as welcome. The scope `operate` is needed, unless `serve "
        "--metrics` says otherwise.",
        "security": [{}, {"token": []}],
        "responses": responses(
            _METRICS,
            s200={
                "description": "All of them",
                "content": {
                    kind: {"schema": {"type": "string"}}
                    for kind in (metrics.PLAIN, metrics.OPEN)
                },
            },
        ),
    }
