"""updaterd keeps applications on end-user Linux machines up to date, by push."""

__version__ = "0.1.0"
