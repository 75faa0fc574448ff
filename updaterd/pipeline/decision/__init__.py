# SPDX-License-Identifier: Apache-2.0
"""What is to be done with a product, by signed word and by this machine's facts."""
