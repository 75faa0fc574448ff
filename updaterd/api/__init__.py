# SPDX-License-Identifier: Apache-2.0
"""The Varlink interface for applications, in a short-lived process of its own."""
