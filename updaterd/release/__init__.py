# SPDX-License-Identifier: Apache-2.0
"""The publisher's side: bundle, delta, sign, publish, steer."""
