# SPDX-License-Identifier: Apache-2.0
"""`updaterd release`: what keeps a repository and its copies whole."""
