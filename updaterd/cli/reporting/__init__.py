# SPDX-License-Identifier: Apache-2.0
"""Commands about what this machine tells a server, and by which token."""
