"""Images as arrays: geometry, intensity, NIfTI files and the brain mask."""
