# SPDX-License-Identifier: Apache-2.0
"""What the kernel, systemd and other processes of updaterd can be asked or told."""
