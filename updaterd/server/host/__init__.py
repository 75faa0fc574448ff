# SPDX-License-Identifier: Apache-2.0
"""Several processes that serve one address: who owns the log, who has the streams."""
