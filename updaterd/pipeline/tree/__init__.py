# SPDX-License-Identifier: Apache-2.0
"""The tree of a release, from bundles and from what is on disk already.

build.py applies bundles, reuse.py copies what is here, acquire.py chooses between them
and goes on to the next where one fails. finish.py gives a whole tree what its listing
does not say; byte_code.py takes away what Python left in one.
"""
