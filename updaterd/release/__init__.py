# SPDX-License-Identifier: Apache-2.0
"""The release engineer's side: bundle, delta, sign, publish, steer."""
