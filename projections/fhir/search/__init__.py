"""What resources are found by: search parameters, and the rows that each version of a resource has for them."""
