"""Scripts that train, check and export the bundled models; see README.md in this folder."""
