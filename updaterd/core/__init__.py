# SPDX-License-Identifier: Apache-2.0
"""The rules, without effects: no clock, no random numbers, no disk, no network.

What a rule needs (the time, a random draw, bytes) is an argument, so that every
decision can be tested with values and repeated exactly.

One folder without rooms, in four groups:

- what a release is: manifest, bundle, attributes, tree, special, understanding,
  bundle_kinds, routes, budget, room;
- when: due, pace, backoff, rate, retry_after, rollout, turn, windows;
- text from outside: json_fields, json_window, toml_fields, sse, units, text;
- decisions and documents: planner, decision, recovery, lifecycle, words, channel,
  announcement, events, layout, names, settings, grants, reserved, proxies; `codes/`
  beside them.
"""
