"""The cohort rows as columns in memory: dictionary-encoded, versioned, counted at the speed of memory."""
