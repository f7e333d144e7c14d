"""What a viewer asks: studies, series and instances as DICOM JSON that is ready to be sent (PS3.18, 10.6 and F.2)."""

from projections.dicom.projection import DicomProjection

__all__ = ["DicomProjection"]
