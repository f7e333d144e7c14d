"""What machines do about it: they follow the log, index series, and add what they found."""
