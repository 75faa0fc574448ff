"""The signed files of a repository, and what they say of each product."""
