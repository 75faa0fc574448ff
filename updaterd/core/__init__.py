# SPDX-License-Identifier: Apache-2.0
"""The rules, without effects: no clock, no random numbers, no disk, no network.

What a rule needs (the time, a random draw, bytes) is an argument, so that every
decision can be tested with values and repeated exactly.

One folder without rooms, in four groups:

- what a release is: manifest, bundle, attributes, tree, special, understanding,
  bundle_kinds, routes, budget, room, release_notes, attestation;
- when: due, pace, backoff, rate, retry_after, rollout, turn, windows;
- text from outside: json_fields, json_window, toml_fields, sse, units, text, accept;
- decisions and documents: planner, decision, stones, recovery, lifecycle, words,
  channel, announcement, events, report, identity, caching, layout, names, settings,
  grants, reserved, proxies; `codes/` beside them.

`dataclass` and `frozen` are what their values are made of.
"""
