"""Forgetting a subject: what the log knows of it, which files hold its bytes, and the steps in which all of it goes."""
