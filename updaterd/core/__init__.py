# SPDX-License-Identifier: Apache-2.0
"""The rules, without effects: no clock, no random numbers, no disk, no network.

What a rule needs (the time, a random draw, bytes) is an argument, so that every
decision can be tested with values and repeated exactly.
"""
