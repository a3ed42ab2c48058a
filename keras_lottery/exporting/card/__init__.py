"""What a version directory says about itself."""
