"""DIMSE: C-STORE and C-ECHO as a service class provider (PS3.4, B; PS3.7, 9.1; PS3.8)."""
