"""The effects on the machine: stage, activate, restart, health, prune."""
