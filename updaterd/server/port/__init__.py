# SPDX-License-Identifier: Apache-2.0
"""Connections, before any application: accepted, limited, parsed, handed on."""
