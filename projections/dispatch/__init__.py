"""What is to be done: series that nobody has requested to be indexed yet, and requests that stand."""
