"""What auditors ask: who did what to which, and when; and which position an instant means. No identities in it."""
