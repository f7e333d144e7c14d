"""What does it look like now, or then? Read models built from the log, each a folder here; all can be thrown away and rebuilt."""
