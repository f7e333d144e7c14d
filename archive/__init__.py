"""Where are the pixels? A durable spool, a content-addressed store, and DICOM headers read without touching pixels."""
