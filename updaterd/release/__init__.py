"""The release engineer's side: bundle, delta, sign, publish, steer."""
