# SPDX-License-Identifier: Apache-2.0
"""What `/openapi.json` says: each request and answer, from what enforces them."""
