# SPDX-License-Identifier: Apache-2.0
"""updaterd keeps applications on end-user Linux machines up to date, by push."""

import sys

__version__ = "0.2.0"

# With rich and click installed, `import httpx` would load its own command line: 6 MB
# and 80 ms in a daemon that lives on other people's machines. Here, because nothing
# of updaterd can be imported before it, in whatever order a formatter puts imports.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type] # None: absent
