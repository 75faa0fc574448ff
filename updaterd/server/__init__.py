# SPDX-License-Identifier: Apache-2.0
"""The feed server: announces, replays, serves files. It holds no keys."""
