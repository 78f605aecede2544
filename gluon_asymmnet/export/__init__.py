"""From a network to files, compared before they are put in place."""
