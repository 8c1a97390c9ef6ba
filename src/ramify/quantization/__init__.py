"""Weight formats: low-bit codes with scales, and what makes and multiplies them."""
