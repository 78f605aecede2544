"""Speed and memory, measured side by side: one process per contender, in turn, round by round."""
