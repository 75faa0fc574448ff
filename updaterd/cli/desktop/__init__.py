# SPDX-License-Identifier: Apache-2.0
"""Commands for the person and the applications at a machine."""
