# SPDX-License-Identifier: Apache-2.0
"""What this machine tells a server about its updates, where its owner wants that."""
