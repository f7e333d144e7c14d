"""The demonstration: a site in a temporary folder, a sender, and what is shown of them."""
