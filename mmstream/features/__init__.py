"""What models hear and see: features of samples and pixels, streaming and whole."""
