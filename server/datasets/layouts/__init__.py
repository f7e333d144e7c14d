"""The forms in which a dataset leaves, each a folder or some files of an export."""
