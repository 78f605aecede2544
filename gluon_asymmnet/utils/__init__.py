"""Services that know nothing of networks."""
