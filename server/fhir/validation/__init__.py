"""What a resource must meet: R5's own definitions, and the profiles of the implementation guide. No I/O, no request."""
