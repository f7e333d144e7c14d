"""DICOMweb (PS3.18): QIDO-RS, WADO-RS and STOW-RS, enough for a viewer and for scripts."""
