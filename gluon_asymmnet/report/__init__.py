"""What a run directory says, for a person: a page, and the state of a run that goes on."""
