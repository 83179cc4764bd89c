"""OME-Zarr (NGFF) images and plates: what they look like, how they are written and committed."""
